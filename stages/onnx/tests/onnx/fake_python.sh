#!/bin/sh
# Stands in for a Python interpreter: tests link to it and put its behaviour into files beside the link.
#   package   what the search for the installed package prints
#   library   the library that "pip" installs; without it, pip fails as it does when there is no wheel
here=$(dirname "$0")
if [ "$1" = "-c" ]; then
    [ -f "$here/package" ] && cat "$here/package"
    exit 0
fi
echo "$*" >> "$here/calls"
if [ ! -e "$here/library" ]; then
    echo "a line about progress" >&2
    echo "ERROR: No matching distribution found for onnxruntime" >&2
    echo "a hint" >&2
    exit 1
fi
while [ "$1" != "--target" ]; do shift; done
sleep 0.3
mkdir -p "$2/onnxruntime/capi"
cp "$here/library" "$2/onnxruntime/capi/libonnxruntime.so.1.31.1"
echo text > "$2/onnxruntime/LICENSE"
echo code > "$2/onnxruntime/__init__.py"
