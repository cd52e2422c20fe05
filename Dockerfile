# Two stages: the first installs packages and compiles the kernels for every instruction-set level, the second
# holds Bun, the sources, the libraries and nothing that only builds. The image runs on any processor.
#
#   docker build -t mistral.ts .
#   docker run -p 1234:1234 -v models:/home/bun/.cache mistral.ts

FROM oven/bun:1.4.5-debian AS build
WORKDIR /app
# Packages first: this layer changes only with the lockfile.
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile
COPY . .
RUN bun run build --all
# What runs needs neither the compiler nor the development packages.
RUN rm -rf node_modules \
    && bun install --frozen-lockfile --production \
    && rm -rf node_modules/@zigc .zig-cache zig-out/.setup-lock

FROM oven/bun:1.4.5-slim
WORKDIR /app
ENV NODE_ENV=production
COPY --from=build /app/LICENSE /app/package.json /app/bunfig.toml ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/zig-out ./zig-out
COPY --from=build /app/src ./src
# Models are kept in a volume of this user, so that each is downloaded once.
RUN mkdir -p /home/bun/.cache && chown -R bun:bun /home/bun/.cache
USER bun
VOLUME /home/bun/.cache
EXPOSE 1234
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["bun", "-e", "process.exit((await fetch('http://127.0.0.1:1234/health')).ok ? 0 : 1)"]
ENTRYPOINT ["bun", "src/cli/main.ts"]
CMD ["serve"]
