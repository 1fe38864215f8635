#!/bin/sh
# Coq and the libraries that the proofs stand on, from Debian (12: Coq 8.16.1). Needs root.
set -eu
packages="coq libcoq-coquelicot libcoq-interval libcoq-mathcomp-ssreflect libcoq-mathcomp-algebra gappa"
command -v apt-get >/dev/null || {
  echo "no apt-get here; install by hand: $packages (or use opam: coq.8.16.1 coq-coquelicot coq-interval coq-mathcomp-algebra gappa)" >&2
  exit 2
}
[ "$(id -u)" = 0 ] || { echo "apt-get needs root: sudo sh proofs/install-coq.sh" >&2; exit 2; }
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
coqc --version
