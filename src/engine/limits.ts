/** Every bound and pace of the engine that is not a setting, in one place. */

/** Share of the KV blocks that admission leaves for the growth of running sequences. */
export const WATERMARK_FRACTION = 0.01;

/** A sequence preempted this often is admitted again only when its longest possible length fits. */
export const PREEMPTIONS_BEFORE_RESERVE = 3;

/** Waiting sequences looked at past ones that are held for a prefix another sequence is computing. */
export const HELD_SEQUENCES_MAX = 64;

/** A waiting sequence rises by one class of priority each time it has waited this long. */
export const AGEING_MS = 30_000;

/** Of so many admissions one goes to who has waited longest, while somebody has risen to the class on top. */
export const TURNS_PER_RISEN = 4;

/** Requests that wait, and the tokens of their prompts, before an engine answers "overloaded". */
export const QUEUED_REQUESTS_MAX = 1024;
export const QUEUED_TOKENS_MAX = 4 * 1024 * 1024;

/** Tokens that wait for their reader before the request is ended as abandoned. */
export const PENDING_TOKENS_MAX = 8192;

/** Work is queued and the engine process says nothing for this long: it hangs, unless its steps are slow. */
export const HANG_TIMEOUT_MS = 60_000;

/** The first step may take so many times the hang timeout ... */
export const FIRST_STEP_PATIENCE = 10;
/** ... and a later one so many times what a full step would take at the slowest rate that was seen. */
export const FULL_STEP_PATIENCE = 4;

/** An engine process with work, but nothing to report, still says something this often. */
export const HEARTBEAT_MS = 100;
/** While requests only go on, the engine process tells its figures this often. */
export const STATISTICS_MS = 100;

/** First and longest pause before a crashed engine process is started again; doubles in between. */
export const RESTART_DELAY_MS = 100;
export const RESTART_DELAY_MAX_MS = 30_000;

/** Crashes in a row, none of the lives lasting `HEALTHY_MS`, after which the engine gives up. */
export const RESTARTS_MAX = 8;
export const HEALTHY_MS = 60_000;

/** How long `close` lets open requests finish, and then how long the process may take to leave. */
export const DRAIN_TIMEOUT_MS = 30_000;
export const EXIT_TIMEOUT_MS = 2_000;
