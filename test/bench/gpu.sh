#!/bin/sh
# Runs gpu.ts with the Bun that is here, or with the one that gpu/pack.ts put into .gpu/. Arguments are passed on.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
if [ -f .gpu/bun.xz ] && [ ! -x .gpu/bun ]; then
  xz -dc .gpu/bun.xz > .gpu/bun.new
  chmod +x .gpu/bun.new
  mv .gpu/bun.new .gpu/bun
fi
if [ -f .gpu/lib.tar.xz ] && [ ! -d .gpu/lib ]; then
  mkdir -p .gpu/lib.new
  tar -xJf .gpu/lib.tar.xz -C .gpu/lib.new
  mv .gpu/lib.new .gpu/lib
fi
if [ -x .gpu/bun ]; then bun=$root/.gpu/bun
elif command -v bun > /dev/null; then bun=bun
else
  echo "there is no Bun: install it, or run \`bun test/bench/gpu/pack.ts\` where there is one and carry .gpu/ along" >&2
  exit 127
fi
exec "$bun" test/bench/gpu.ts "$@"
