# The whole program is one static file; the image holds it, the certificates of
# public authorities and nothing else: no shell, no package manager.
#
#   docker build --build-arg VERSION=1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" -t quayside .

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=development
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -mod=readonly -trimpath \
      -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" \
      -o /out/quayside ./cmd/quayside

# What the distroless images hold of use to us, without depending on one.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/quayside /quayside
# Nobody in particular: there is no /etc/passwd to name one.
USER 65532:65532
# It needs no file of its own; settings come from the environment (configs/example.env).
ENTRYPOINT ["/quayside"]
CMD ["serve"]
