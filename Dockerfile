# A static binary in an empty image: `docker build -t routelet:0.1.0 .`
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
RUN scripts/release

FROM scratch
COPY --from=build /src/target/x86_64-unknown-linux-gnu/dist/routelet /routelet
ENTRYPOINT ["/routelet"]
CMD ["run"]
