# SPDX-License-Identifier: MIT
# Completion of musterd's options, and of the apps in its configuration directory.

_musterd() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} f
        local -a apps=()

        if [[ $prev == -c || $prev == --config ]]; then
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
        fi
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '-c --config= --check --detach --print-config -h --help --version' -- "$cur")
                [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
                return
        fi
        for f in @configdir@/*.conf; do
                [[ -e $f ]] && f=${f##*/} && apps+=("${f%.conf}")
        done
        mapfile -t COMPREPLY < <(compgen -W "${apps[*]}" -- "$cur"; compgen -f -X '!*.conf' -- "$cur")
}
complete -F _musterd musterd
