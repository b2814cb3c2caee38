"""`sampan completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import sys

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()

BASH = r"""# sampan completion for bash: source <(sampan completion bash)
_sampan() {
    local line directive=0 word=${COMP_WORDS[COMP_CWORD]}
    # COMP_WORDS is split at colons too, and image names have them: take the line's own words.
    local -a words
    read -ra words <<< "${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:COMP_POINT-1:1} == [[:space:]] ]] && words+=("")
    local whole=${words[-1]}
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :* ]]; then
            directive=${line#:}
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"${whole%"$word"}"}")
        fi
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    if [[ $directive == 0 && ${#COMPREPLY[@]} == 0 ]]; then
        compopt -o default
    fi
}
complete -F _sampan sampan
"""

ZSH = r"""#compdef sampan
# sampan completion for zsh: source <(sampan completion zsh)
_sampan() {
    local line directive=0
    local -a candidates
    while IFS= read -r line; do
        if [[ $line == :* ]]; then
            directive=${line#:}
        else
            local name=${line%%$'\t'*}
            local told=""
            [[ $line == *$'\t'* ]] && told=${line#*$'\t'}
            candidates+=("${name//:/\\:}${told:+:$told}")
        fi
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe 'sampan' candidates
    [[ $directive == 0 ]] && _files
}
compdef _sampan sampan
"""

FISH = r"""# sampan completion for fish: sampan completion fish | source
function __sampan_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | string match -v -r '^:\d+$'
end
function __sampan_wants_files
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null | string match -q ':0'
end
complete -c sampan -f -a '(__sampan_complete)'
complete -c sampan -n __sampan_wants_files -F
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(call: Call) -> int:
    """Print the script."""
    script = SCRIPTS.get(call.args[0])
    if script is None:
        raise CommandError(
            f"no completion for {call.args[0]}", hint="there is one for bash, zsh and fish"
        )
    sys.stdout.write(script)
    return 0
