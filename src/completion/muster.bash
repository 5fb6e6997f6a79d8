# SPDX-License-Identifier: MIT
# Completion of muster's commands and options, and of the apps in the configuration directory.

_muster() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} f i
        local -a apps=() words=()

        # bash cuts --socket=PATH at the "=".
        if [[ $prev == --socket || ($prev == = && ${COMP_WORDS[COMP_CWORD-2]} == --socket) ]]; then
                [[ $cur == = ]] && cur=
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
        fi
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W '--json --socket= --timeout= --worker= -h --help --version' -- "$cur")
                [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
                return
        fi
        for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                --socket | --timeout | --worker) [[ ${COMP_WORDS[i+1]} == = ]] && ((i++)); ((i++)) ;;
                -*) ;;
                *) words+=("${COMP_WORDS[i]}") ;;
                esac
        done
        COMPREPLY=()
        case ${#words[@]} in
        0)
                mapfile -t COMPREPLY < <(compgen -W 'status exits reload scale send' -- "$cur")
                ;;
        1)
                for f in @configdir@/*.conf; do
                        [[ -e $f ]] && f=${f##*/} && apps+=("${f%.conf}")
                done
                mapfile -t COMPREPLY < <(compgen -W "${apps[*]}" -- "$cur")
                ;;
        esac
}
complete -F _muster muster
