# Every shell of the box reads this file (bash --rcfile). Commands arrive on descriptor 200 and reports leave on 201, so
# the terminal carries only the input and output of programs. Typed-ahead input cannot mix with a command, the line
# length of the terminal does not limit it, and its output cannot be mistaken for its end.

set +H +o history
PS1= PS2=

cd "$HOME/workspace" 2>/dev/null

__moorage_status() { __moorage_last=0; return "$1"; }

# Bash runs this before each prompt and never reaches the prompt: it waits here for the next command. After an
# interrupt or a failed expansion, bash returns to its top level and comes here again with that status. The outer loop
# is needed when a command runs "break" outside of its own loop.
#
# A report is the command's token, its status and the directory, each ended by NUL. The token is also written to the
# terminal, because only there its position in the output is known. It goes to /dev/tty, because a command may redirect
# the shell's output. The command inherits neither descriptor. The options -e, -u and -x are reset after each command:
# otherwise they would end the shell at the next failure, or trace this loop.
PROMPT_COMMAND='{ __moorage_last=$?; } 2>/dev/null
while :; do
  while {
    builtin set +eux
    builtin printf "%s\0%s\0%s\0" "$__moorage_token" "$__moorage_last" "$PWD" >&201
    builtin printf "\e]777;%s\a" "$__moorage_token" >/dev/tty
    TMOUT= IFS= builtin read -r -d "" -u 200 __moorage_token || builtin exit
    TMOUT= IFS= builtin read -r -d "" -u 200 __moorage_directory || builtin exit
    TMOUT= IFS= builtin read -r -d "" -u 200 __moorage_command || builtin exit
    [[ -z $__moorage_directory || $PWD == "$__moorage_directory" ]] || builtin cd -- "$__moorage_directory"
    :
  } 2>/dev/null; do
    __moorage_status "$__moorage_last"
    { builtin eval "$__moorage_command"; } 200<&- 201>&-
    { __moorage_last=$?; } 2>/dev/null
  done
done'
