# docker build -t bids-alphagan:0.1.0 .            see docs/containers.md
# Any Debian or Ubuntu image can stand in for SPM_IMAGE; without SPM in it, masks come from antspyx.
ARG SPM_IMAGE=ghcr.io/spm/spm-docker:docker-octave-latest

# hadolint ignore=DL3006
FROM ${SPM_IMAGE} AS build
# Where pip looks beside its own index, such as PyTorch's index of wheels without CUDA.
ARG PIP_EXTRA_INDEX_URL=
COPY container/install.sh /src/container/
RUN /src/container/install.sh system
COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY bids_alphagan /src/bids_alphagan
RUN /src/container/install.sh app /src

# hadolint ignore=DL3006
FROM ${SPM_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="bids-alphagan" \
      org.opencontainers.image.description="Synthetic rat-brain MRI cohorts with tissue masks, as a BIDS App" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The bids-alphagan developers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN --mount=type=bind,source=container,target=/container /container/install.sh system
COPY --from=build /opt/bids-alphagan /opt/bids-alphagan
# Any user id, no home, a read-only root: all that is written beside output and work folders goes to /tmp.
ENV PATH=/opt/bids-alphagan/bin:$PATH \
    SPM_HOME=/opt/spm \
    BIDS_ALPHAGAN_CONTAINER=docker:bids-alphagan:${VERSION} \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NIPYPE_CONFIG_DIR=/tmp/cache/nipype \
    TEMPLATEFLOW_HOME=/tmp/cache/templateflow \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/cache/triton
ENTRYPOINT ["bids-alphagan"]
