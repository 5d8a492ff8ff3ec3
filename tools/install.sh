#!/usr/bin/env bash
# Make .venv with everything that the book needs. First the checks that take no time, each with one clear line, then the
# installation. The file .venv/installed says that it is complete: an interrupted one is begun again.
set -euo pipefail

fail() {
    echo "make: $*" >&2
    exit 1
}

python=
for candidate in ${PYTHON:-python3.11 python3 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 is needed (MindSpore 2.10 has nothing newer), and none was found" \
    "(python3 is $(python3 --version 2>&1 | head -n 1)). Install it, or name it: make book PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3.11-venv"
if [ "$(uname -s)" = Linux ]; then
    "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null ||
        fail "libgomp.so.1 is missing, which MindSpore loads; on Debian and Ubuntu: sudo apt install libgomp1"
fi

start=$SECONDS
if [ ! -e .venv/installed ]; then
    "$python" -m venv --clear .venv
fi
rm -f .venv/installed
# --use-pep517: MedPy comes as source, and an old pip would want a wheel package for it. No compiler is needed.
# --no-compile: Python compiles a module when it is first imported, which few of these thousands ever are.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-compile \
    --constraint constraints.txt --editable '.[book,test]'
touch .venv/installed
echo "   installed in $((SECONDS - start)) s"
