# Completion of clusterd for bash (4.4 or later). Printed by `clusterd completions bash`; it is found as
# /usr/share/bash-completion/completions/clusterd, or once it is sourced.
_clusterd() {
    local piece word cut file value meaning kind=none i
    local -a words=() found=()
    COMPREPLY=()
    for ((i = 1; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        # Readline cuts words at = and : as well.
        if ((i > 1)) && [[ $piece == [=:]* || ${COMP_WORDS[i - 1]} == *[=:] ]]; then
            words[-1]+=$piece
        else
            words+=("${piece/#\~\//$HOME/}")
        fi
    done
    word=${words[-1]}
    # What readline has taken for earlier words is not to be typed again.
    cut=${word%"${word##*[=:]}"}
    file=${word#"$cut"}
    while IFS=$'\t' read -r value meaning; do
        case $kind in
            none) kind=:$value ;;
            *) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done < <("$1" __complete -- "${words[@]}" 2>/dev/null)
    case $kind in
        :files) mapfile -t found < <(compgen -f -- "$file") ;;
        :folders) mapfile -t found < <(compgen -d -- "$file") ;;
        :toml)
            mapfile -t found < <(compgen -f -X '!*.toml' -- "$file")
            # Every folder may lead to one: they stand aside where there is something nearer.
            if [[ $file == */* || ${#found[@]} == 0 && ${#COMPREPLY[@]} == 0 ]]; then
                mapfile -t -O "${#found[@]}" found < <(compgen -d -- "$file")
            fi
            ;;
    esac
    if ((${#found[@]})); then
        COMPREPLY+=("${found[@]}")
        compopt -o filenames 2>/dev/null
    fi
}
complete -o nosort -F _clusterd clusterd
