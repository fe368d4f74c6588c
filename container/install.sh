#!/bin/sh
# The one recipe behind Dockerfile and Singularity.def, for any Debian or Ubuntu. As root:
#   install.sh system            Python from the distribution
#   install.sh app SOURCE        the app with its locked dependencies, in /opt/bids-alphagan
#   install.sh templates [NAME ...]  TemplateFlow templates, in /opt/templateflow
# Environment: TORCH=cuda|cpu; TORCH_INDEX, where pip finds PyTorch for cpu; SOURCE_DATE_EPOCH, the age of all files.
# Where /wheels holds anything, pip takes the wheels there and asks no index.
set -eu

PREFIX=/opt/bids-alphagan
TEMPLATEFLOW=/opt/templateflow
WHEELS=/wheels
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}"

# What a package's installation leaves behind: lists, logs with the time of day, backups.
apt_clean() {
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old \
        /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
}

# The distribution's own python3 where it is new enough; Ubuntu 22.04 has 3.11 beside its 3.10.
choose_python() {
    for package in python3 python3.12 python3.11; do
        version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: *//p')
        if [ -n "$version" ] && [ "$version" != "(none)" ] && dpkg --compare-versions "$version" ge 3.11; then
            echo "$package"
            return
        fi
    done
    echo "install.sh: this system has no Python 3.11 or newer; choose a newer SPM_IMAGE" >&2
    exit 1
}

# Byte code that holds without a look at its source's time, so that files of the image differ in nothing.
compile() {
    # Some packages ship test files for another Python, which say so and are left as they are.
    "$1" -m compileall -q --invalidation-mode unchecked-hash "$2" || true
}

install_system() {
    apt-get update -qq
    python=$(choose_python)
    apt-get install -y -qq --no-install-recommends "$python"
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    find "$library" /usr/lib/python3 -name __pycache__ -exec rm -rf {} +
    compile "$python" "$library"
    apt_clean
}

# Whether pip is to take the wheels in /wheels, and to ask no index.
wheels_given() {
    [ -n "$(ls -A "$WHEELS" 2>/dev/null)" ]
}

# PyTorch is one version in several builds. That for CUDA comes, with its hashes, from where all else does; that for
# CPU alone is served by PyTorch's own index, and is held to its version.
torch_for() {
    case "$1" in
    cuda) echo "--require-hashes -r $source/container/torch-cuda.lock" ;;
    cpu)
        if [ -z "${TORCH_INDEX:-}" ] && ! wheels_given; then
            echo "install.sh: TORCH=cpu needs TORCH_INDEX, too: pip's usual index has no PyTorch for CPUs alone." \
                "PyTorch's installation page, with CPU chosen as the compute platform, names it after --index-url." >&2
            exit 2
        fi
        version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$source/container/torch-cuda.lock")
        echo "${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==$version+cpu"
        ;;
    *)
        echo "install.sh: TORCH=$1: choose cuda or cpu" >&2
        exit 2
        ;;
    esac
}

install_app() {
    source=$1
    torch=$(torch_for "${TORCH:-cuda}")
    apt-get update -qq
    python=$(choose_python)
    apt-get install -y -qq --no-install-recommends "$python-venv"
    build=$(mktemp -d)
    "$python" -m venv "$build/tools"
    "$python" -m venv --without-pip "$PREFIX"
    if wheels_given; then
        set -- --no-index --find-links "$WHEELS"
    else
        set --
    fi
    pip="$build/tools/bin/pip"
    # What builds packages that come as source is locked, too.
    sed -n '/^setuptools==/,/[^\\]$/p' "$source/container/requirements.lock" >"$build/setuptools.lock"
    "$pip" install -q "$@" --require-hashes -r "$build/setuptools.lock"
    "$pip" wheel -q "$@" --no-deps --no-build-isolation --require-hashes -w "$build/wheels" \
        -r "$source/container/requirements.lock"
    # shellcheck disable=SC2086 # words to split
    "$pip" wheel -q "$@" --no-deps -w "$build/wheels" $torch
    "$pip" wheel -q --no-index --no-deps --no-build-isolation -w "$build/wheels" "$source"
    # By names, since pip notes down the place of a file that it is given.
    for wheel in "$build/wheels"/*.whl; do
        basename "$wheel" | sed 's/^\([^-]*\)-\([^-]*\)-.*/\1==\2/'
    done >"$build/packages"
    "$pip" -q --python "$PREFIX/bin/python" install --no-index --find-links "$build/wheels" --no-deps --no-compile \
        -r "$build/packages"
    "$pip" --python "$PREFIX/bin/python" check
    rm -rf "$build" "$source/build" "$source"/*.egg-info
    apt-get purge -y -qq --autoremove "$python-venv"
    apt_clean
    compile "$PREFIX/bin/python" "$PREFIX/lib"
    find "$PREFIX" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    say_what_is_there
}

say_what_is_there() {
    "$PREFIX/bin/bids-alphagan" --version
    SPM_HOME="${SPM_HOME:-/opt/spm}" PYTHONDONTWRITEBYTECODE=1 "$PREFIX/bin/python" - <<'END'
from bids_alphagan.segmenters.spm_program import find_spm
print("SPM:", " ".join(find_spm() or ["none in this base image: --segmenter auto takes antspyx"]))
END
}

# For all to read. What a run fetches goes to its user's cache, since an image may not be writable.
install_templates() {
    install -d -m 755 "$TEMPLATEFLOW"
    if [ $# -gt 0 ]; then
        HOME=$TEMPLATEFLOW PYTHONDONTWRITEBYTECODE=1 "$PREFIX/bin/bids-alphagan-template" "$@" --home "$TEMPLATEFLOW"
        rm -rf "$TEMPLATEFLOW/.cache"
        chmod -R a+rX "$TEMPLATEFLOW"
    fi
    find "$TEMPLATEFLOW" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

what=${1:-}
[ $# -gt 0 ] && shift
case "$what" in
system) install_system ;;
app) install_app "${1:?install.sh app SOURCE}" ;;
templates) install_templates "$@" ;;
*)
    echo "usage: install.sh system | install.sh app SOURCE | install.sh templates [NAME ...]" >&2
    exit 2
    ;;
esac
