#!/bin/sh
# Plain pulumi in a shell of the lab. A stack's config is the lab's own copy: it holds the generated secrets, which the
# file in the project's folder, its template, does not.
pulumi=@PULUMI@
lab=@LAB@
backend=@BACKEND@

folder=. command= previous=
for word; do
    case $previous in -C | --cwd) folder=$word ;; esac
    case $word in --cwd=*) folder=${word#--cwd=} ;; esac
    case $previous$word in stackselect) command=select ;; esac
    previous=$word
done

# pulumi takes the nearest Pulumi.yaml, upwards from its folder.
place=$(CDPATH='' cd -- "$folder" 2>/dev/null && pwd) || place=
while [ -n "$place" ] && [ ! -f "$place/Pulumi.yaml" ]; do
    place=${place%/*}
done
project=$(sed -n "s/^name:[[:space:]]*[\"']\{0,1\}\([^\"'[:space:]]*\).*/\1/p" "$place/Pulumi.yaml" 2>/dev/null)
config=$lab/stacks/$project/Pulumi.lab.yaml
if [ "${PULUMI_BACKEND_URL:-}" = "$backend" ] && [ -n "$project" ] && [ -f "$config" ]; then
    PULUMI_OPTION_CONFIG_FILE=$config
    export PULUMI_OPTION_CONFIG_FILE
fi

[ "$command" = select ] || exec "$pulumi" "$@"
"$pulumi" "$@" || {
    code=$?
    echo "this shell works on the lab, where each project has the one stack lab: pulumi stack select lab" >&2
    exit "$code"
}
