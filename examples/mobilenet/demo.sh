#!/bin/sh
# The main job end to end: obtain MobileNetV2 into the folder given, convert it, deploy and profile it here.
set -eu
folder=${1:-build/demo}

say() {
    printf '\n$ %s\n' "$*"
    "$@"
}

say python -m examples.mobilenet "$folder"
say edgeq convert "$folder/mobilenet.h5" --calibration "$folder/calibration" --preprocess torch
say edgeq deploy --device local
say edgeq profile --power --device local --data "$folder/evaluation" --labels-from name
say edgeq report latest --html "$folder/run.html"

cat <<END

artifact           build/mobilenet
its report         build/mobilenet/report.html
report of the run  $folder/run.html
END
