# make image            see docs/containers.md
# Any Debian or Ubuntu image can stand in for SPM_IMAGE; without SPM in it, masks come from antspyx.
# For a build that can be had again, name it by its digest: ghcr.io/spm/spm-docker@sha256:...
# With MATLAB's runtime in Octave's place: ghcr.io/spm/spm-docker:docker-matlab-latest
ARG SPM_IMAGE=ghcr.io/spm/spm-docker:docker-octave-latest

# A folder of wheels for a build without an index: --build-context wheels=DIR puts it in this stage's place.
FROM scratch AS wheels

# hadolint ignore=DL3006
FROM ${SPM_IMAGE} AS system
RUN --mount=type=bind,source=container,target=/container /container/install.sh system

FROM system AS build
ARG TORCH=cuda
ARG TORCH_INDEX=
ARG TEMPLATES=
ARG SOURCE_DATE_EPOCH=1767225600
COPY pyproject.toml README.md LICENSE /src/
COPY container /src/container
COPY bids_alphagan /src/bids_alphagan
RUN --mount=type=bind,from=wheels,target=/wheels /src/container/install.sh app /src
# hadolint ignore=SC2086
RUN /src/container/install.sh templates ${TEMPLATES}

FROM system
COPY --from=build /opt/bids-alphagan /opt/bids-alphagan
COPY --from=build /opt/templateflow /opt/templateflow
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="bids-alphagan" \
      org.opencontainers.image.description="Synthetic rat-brain MRI cohorts with tissue masks, as a BIDS App" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The bids-alphagan developers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# Any user id, no home, a read-only root: where BIDS_ALPHAGAN_CONTAINER is set, caches go to the work folder.
ENV PATH=/opt/bids-alphagan/bin:$PATH \
    SPM_HOME=/opt/spm \
    BIDS_ALPHAGAN_CONTAINER=docker:bids-alphagan:${VERSION} \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    HOME=/tmp \
    TEMPLATEFLOW_HOME=/opt/templateflow
WORKDIR /tmp
ENTRYPOINT ["bids-alphagan"]
CMD ["--help"]
