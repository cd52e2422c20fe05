/** What `doctor --json` prints: the report of the server's doctor, and what of the configuration has no effect. */

import { type Static, Type } from "@sinclair/typebox";
import { DoctorCheck } from "../../server/admin/doctor.ts";
import { SystemInfo } from "../../server/admin/system-info.ts";

export const DoctorReport = Type.Object({
  system: SystemInfo,
  checks: Type.Array(DoctorCheck),
  /** Settings that are set and do nothing, because what they belong to is not built. */
  not_in_effect: Type.Array(
    Type.Object({
      key: Type.String(),
      /** What set it, such as "variable MISTRALRS_NO_MLA". */
      source: Type.String(),
      value: Type.String(),
      because: Type.String(),
    }),
  ),
});
export type DoctorReport = Static<typeof DoctorReport>;
