use clap::Args;
use clap_complete::Shell;

use super::{Failure, command, io, values};

/// Print shell completions
///
/// Those for bash, zsh and fish also complete neighbors, prefixes and policies of the running
/// daemon.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell to complete in
    #[arg(value_enum, required_unless_present = "values")]
    shell: Option<Shell>,
    /// Print the values that fit the end of this line; for the scripts of shells
    #[arg(long, value_name = "LINE", hide = true, conflicts_with = "shell")]
    values: Option<String>,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut root = command();
        if let Some(line) = self.values {
            return values::print(&line, &root);
        }
        let Some(shell) = self.shell else { return Ok(()) };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut root, "routelet", &mut text);
        io::print(&format!("{}{}", String::from_utf8_lossy(&text), live(shell)))
    }
}

/// The part of a shell's script that completes values of the daemon.
fn live(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => "",
    }
}

/// Where colons separate words, bash replaces only the text after the last colon.
const BASH: &str = r#"
_routelet_live() {
    local line="${COMP_LINE:0:COMP_POINT}" value values=()
    local word="${line##*[[:space:]]}"
    local before="${word%"${word##*:}"}"
    [[ "$COMP_WORDBREAKS" == *:* ]] || before=""
    while IFS= read -r value; do
        values+=("${value#"$before"}")
    done < <("$1" completions --values "$line" 2>/dev/null)
    if ((${#values[@]})); then
        COMPREPLY=("${values[@]}")
    else
        _routelet "$@"
    fi
}
complete -F _routelet_live -o bashdefault -o default routelet
"#;

const ZSH: &str = r#"
_routelet_live() {
    local -a live
    live=("${(@f)$("${words[1]}" completions --values "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    live=(${live:#})
    if (( ${#live} )); then
        compadd -a live
    else
        _routelet "$@"
    fi
}
compdef _routelet_live routelet
"#;

const FISH: &str = "
complete -c routelet -a '(command routelet completions --values (commandline -cp | string collect) 2>/dev/null)'
";
