#!/bin/sh
# Plain pulumi in a shell of the lab. A stack's config is the lab's own copy: it holds the generated secrets, which the
# file in the project's folder, its template, does not.
pulumi=@PULUMI@
lab=@LAB@
cloud=@BACKEND@

# Linked as `esc` where there is no esc: pulumi has its commands, `open` and `run` below `env`.
if [ "${0##*/}" = esc ]; then
    case ${1-} in
    open | run) exec "$pulumi" env "$@" ;;
    *) exec "$pulumi" "$@" ;;
    esac
fi

folder=. command='' previous='' stack=${PULUMI_STACK:-}
for word; do
    [ "$word" != -- ] || break
    case $previous in
    -C | --cwd) folder=$word ;;
    -s | --stack) stack=$word ;;
    esac
    case $word in
    --cwd=*) folder=${word#*=} ;;
    -C?*) folder=${word#-C} folder=${folder#=} ;;
    --stack=*) stack=${word#*=} ;;
    -s?*) stack=${word#-s} stack=${stack#=} ;;
    esac
    case $previous-$word in
    stack-select) command=select ;;
    stack-rm | stack-remove) command=remove ;;
    esac
    previous=$word
done

case ${PULUMI_BACKEND_URL:-} in
"$cloud") configs=$lab/stacks ;;
"file://$lab/backend")
    configs=$lab/file-stacks
    : "${PULUMI_CONFIG_PASSPHRASE_FILE=$lab/passphrase}"
    export PULUMI_CONFIG_PASSPHRASE_FILE
    ;;
*) exec "$pulumi" "$@" ;;
esac

# pulumi takes the nearest Pulumi.yaml, upwards from its folder. Its name stands on a line of its own, as in this repository.
place=$(CDPATH='' cd -- "$folder" 2>/dev/null && pwd) || place=
while [ -n "$place" ] && [ ! -f "$place/Pulumi.yaml" ]; do
    place=${place%/*}
done
project=$(sed -n "s/^name:[[:space:]]*[\"']\{0,1\}\([^\"'[:space:]]*\).*/\1/p" "$place/Pulumi.yaml" 2>/dev/null | sed q)
config=$configs/$project/Pulumi.lab.yaml
if [ -n "$project" ] && [ -f "$config" ] && [ "${stack##*/}" = lab -o -z "$stack" ]; then
    PULUMI_OPTION_CONFIG_FILE=$config
    export PULUMI_OPTION_CONFIG_FILE
fi

case $command in
remove) exec "$pulumi" "$@" --preserve-config ;; # else pulumi deletes the template
select)
    "$pulumi" "$@" || {
        code=$?
        echo "this shell works on the lab, where each project has the one stack lab: pulumi stack select lab" >&2
        exit "$code"
    }
    ;;
*) exec "$pulumi" "$@" ;;
esac
