#!/usr/bin/env bash
# The Debian packages that are needed: `check` names those that vLLM's CPU back end lacks here, `install` installs them
# and those that the tests lack.
set -euo pipefail

missing=()
# A kernel for log-probabilities and torch.compile are compiled at run time.
command -v g++ >/dev/null || missing+=(g++)
# vLLM's CPU kernels are linked with it. grep reads to the end: -q would leave ldconfig with a broken pipe.
PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep "libnuma\.so\.1" >/dev/null || missing+=(libnuma1)

if [ "${1:-install}" = install ]; then
  # Settled rows are copied to a real one; its programs are not on the path.
  compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
  # Limits and budgets are shared through a real one.
  command -v redis-server >/dev/null || missing+=(redis-server)
fi

[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "${1:-install}" = check ] || ! command -v apt-get >/dev/null; then
  echo "Missing here: ${missing[*]}. On Debian and Ubuntu: apt-get install ${missing[*]}" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
echo "Installing Debian packages: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
