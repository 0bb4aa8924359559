# Read by every shell of the box (bash --rcfile). Commands come through descriptor 200, reports go out on 201, and the
# terminal carries nothing but what programs read and print. A command therefore cannot be garbled by type-ahead, cut at
# the terminal's line length, or taken for finished because of what it prints.

set +H +o history
PS1= PS2=

cd "$HOME/workspace" 2>/dev/null

__moorage_status() { __moorage_last=0; return "$1"; }

# Bash runs this before each prompt and never gets to the prompt: it waits here for the next command. After an
# interrupt or a failed expansion bash starts anew at the top, which leads here again with that status. The outer loop
# is for a command that says "break" outside of a loop of its own.
#
# A report is the command's token, its status and the directory, each ended by NUL. The token is also written to the
# terminal, because only there its place in the output is certain; /dev/tty, because a command may redirect the shell.
# Neither descriptor is seen by the command. -e, -u and -x end with the command that set them: left on, they would end
# the shell at the next failure, or trace this loop.
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
