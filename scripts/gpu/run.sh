#!/bin/sh
# Checks and measures this machine's GPU with what lies beside this file, in at most 8 minutes; results/ has what was found.
#   ./run.sh            all of it
#   ./run.sh --help
here=$(cd "${0%/*}" && pwd)
exec "$here/bin/node" "$here/run.mjs" "$@"
