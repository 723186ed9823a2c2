# Completion of clusterd for fish. Printed by `clusterd completions fish`; it is found as clusterd.fish in
# ~/.config/fish/completions or /usr/share/fish/vendor_completions.d.
function __clusterd_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l answer ($words[1] __complete -- $words[2..-1] "$word" 2>/dev/null)
    string join \n -- $answer[2..-1]
    switch "$answer[1]"
        case files
            __fish_complete_path "$word"
        case folders
            __fish_complete_directories "$word"
        case toml
            __fish_complete_suffix .toml
    end
end
complete -c clusterd -f -a '(__clusterd_complete)'
