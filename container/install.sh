#!/bin/sh
# The one recipe behind Dockerfile and Singularity.def, for any Debian or Ubuntu. As root:
#   install.sh system        Python from the distribution
#   install.sh app SOURCE    the app with its locked dependencies, in /opt/bids-alphagan
set -eu

PREFIX=/opt/bids-alphagan
export DEBIAN_FRONTEND=noninteractive

apt_install() {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
    apt-get clean
    rm -rf /var/lib/apt/lists/*
}

# The distribution's own python3 where it is new enough; Ubuntu 22.04 has 3.11 beside its 3.10.
choose_python() {
    apt-get update -qq
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

python=$(choose_python)
case "${1:-}" in
system)
    apt_install "$python"
    ;;
app)
    source=${2:?install.sh app SOURCE}
    apt_install "$python-venv"
    "$python" -m venv "$PREFIX"
    "$PREFIX/bin/pip" install --quiet --no-cache-dir --constraint "$source/constraints.txt" "$source"
    "$PREFIX/bin/bids-alphagan" --version
    "$PREFIX/bin/python" - <<'END'
import os
os.environ.setdefault("SPM_HOME", "/opt/spm")
from bids_alphagan.segmenters.spm_program import find_spm
print("SPM:", " ".join(find_spm() or ["none in this base image: --segmenter auto takes antspyx"]))
END
    apt-get purge -y -qq "$python-venv"
    ;;
*)
    echo "usage: install.sh system | install.sh app SOURCE" >&2
    exit 2
    ;;
esac
