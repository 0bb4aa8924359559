"""Shells keep their state, detect the end of every command, and limit and clean its output."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from sandbox.box.running import Refused, RunningBox, is_running, memory_of
from support.waiting import HANG_SECONDS, block_until


def test_variables_functions_and_directory_persist(box: RunningBox) -> None:
    (box.workspace / "sub").mkdir()
    box.output("export A=1; B=2; declare -A map=([x]=3); greet() { echo hello; }; alias hi='echo hi'; cd sub")
    assert box.output("hi; greet; echo $A$B${map[x]}; pwd") == f"hi\nhello\n123\n{box.workspace}/sub"
    assert box.output("pwd", directory="~") == str(box.home)
    assert box.output("pwd; cd -", directory="/usr") == f"/usr\n{box.home}"


def test_shells_do_not_share_variables_or_directories(box: RunningBox) -> None:
    box.output("A=1", shell="one")
    assert box.output("echo $A.", shell="two") == "."


COMMANDS = {
    "status": ("false", "", 1),
    "status of the last": ("(exit 7)", "", 7),
    "last status is kept": ("(exit 3) || echo $?", "3", 0),
    "no newline at the end": ("printf abc", "abc", 0),
    "several lines": ("echo a\necho b", "a\nb", 0),
    "here document": ("cat <<END\none $((1 + 1))\nEND", "one 2", 0),
    "loop over lines": ("for i in 1 2\ndo\n  echo $i\ndone", "1\n2", 0),
    "comment at the end": ("echo a # comment", "a", 0),
    "nothing": ("", "", 0),
    "not found": ("no-such-command", "bash: no-such-command: command not found", 127),
    "break outside of a loop": ("break", "", 0),
    "return outside of a function": ("return 4", None, 2),
    "syntax error": ("if then", None, 2),
    "quote never closed": ("echo 'a", None, 2),
    "failed expansion": ("echo ${NOPE:?it is missing}; echo no", "bash: NOPE: it is missing", 1),
    "what looks like a prompt": ("printf 'ubuntu@sandbox:~$ \\n# '", "ubuntu@sandbox:~$ \n#", 0),
    "what looks like a marker": ("printf '\\e]777;0123456789abcdef\\a'; echo a", "a", 0),
    "colours": ("printf '\\e[1;31mred\\e[0m\\n'", "red", 0),
    "progress bar": ("for i in 10 50 100; do printf '\\r%3d%%' $i; done; echo", "100%", 0),
    "backspaces": ("printf 'abx\\bc\\n'", "abc", 0),
    "not UTF-8": ("printf 'a\\xff\\xfe\\xfd\\xfcb\\n'", "a\ufffdb", 0),
    "terminal": ("test -t 0 -a -t 1 -a -t 2 && tty | grep -c /dev/pts/", "1", 0),
    "ignored end of input": ("cat </dev/null", "", 0),
    "error exit": ("set -e; true; echo $-; set +e", None, 0),
    "redirected for good": ("exec 3>&1; echo kept >&3; exec 3>&-", "kept", 0),
}


def test_commands_end_with_their_output_and_status(shared_box: RunningBox) -> None:
    for name, (command, output, status) in COMMANDS.items():
        result = shared_box.run(command)
        assert (result["status"], result["exit_code"]) == ("exited", status), name
        if output is not None:
            assert result["output"].rstrip() == output, name


def test_the_last_status_is_seen_by_the_next_command(shared_box: RunningBox) -> None:
    shared_box.run("(exit 9)")
    assert shared_box.output("echo $?") == "9"


def test_a_program_inherits_nothing_but_its_standard_streams(box: RunningBox) -> None:
    listing = "import os; print(*sorted(os.listdir('/proc/self/fd')))"
    assert box.output(f'python3 -c "{listing}"') == "0 1 2 3"


def test_the_end_of_a_command_is_seen_even_if_it_redirects_the_shells_streams(box: RunningBox) -> None:
    result = box.run("exec >/dev/null 2>&1; echo unseen", shell="silent")
    assert (result["output"], result["exit_code"]) == ("", 0)
    assert box.run("exec >&- 2>&- <&-; true", shell="silent")["exit_code"] == 0
    assert box.run("(exit 5)", shell="silent")["exit_code"] == 5


def test_exit_ends_the_shell_and_the_next_command_starts_another(box: RunningBox) -> None:
    box.output("A=1")
    result = box.run("echo bye; exit 3")
    assert (result["status"], result["exit_code"]) == ("exited", 3)
    assert result["output"].startswith("bye\n[the shell ended with exit code 3")
    assert box.output("echo $A.") == "."


@pytest.mark.parametrize(
    ("command", "status"), [("kill -9 $$", 137), ("exec true", 0), ("exec sh -c 'exit 6'", 6), ("set -e; false", 1)]
)
def test_a_shell_that_ends_in_another_way_is_reported_too(shared_box: RunningBox, command: str, status: int) -> None:
    result = shared_box.run(command)
    assert (result["status"], result["exit_code"]) == ("exited", status)
    assert "the shell ended" in result["output"]
    assert shared_box.output("echo again") == "again"


def test_a_missing_directory_is_an_error_and_the_workspace_is_made(box: RunningBox) -> None:
    with pytest.raises(Refused) as refused:
        box.run("pwd", directory="missing")
    assert refused.value.code == "not_found"
    (box.workspace / "file").touch()
    with pytest.raises(Refused) as refused:
        box.run("pwd", directory="file")
    assert refused.value.code == "not_found"
    (box.workspace / "file").unlink()
    box.workspace.rmdir()
    assert box.output("pwd", directory="~/workspace") == str(box.workspace)


def test_a_second_command_gets_an_error_that_says_what_to_do(box: RunningBox) -> None:
    assert box.run("sleep 60", timeout=0.2)["status"] == "running"
    with pytest.raises(Refused) as refused:
        box.run("echo")
    assert refused.value.code == "busy"
    assert "shell_kill_process" in refused.value.message


def test_a_command_that_outlives_its_call_goes_on(box: RunningBox) -> None:
    assert box.run("echo begun; read line; echo got $line", timeout=0.3)["status"] == "running"
    box.wait_for_output("begun")
    assert box.call("shell_read_output", session_id="main")["status"] == "running"
    assert box.call("shell_wait_process", session_id="main", seconds=0.1)["status"] == "running"
    box.call("shell_write_input", session_id="main", input_text="it", press_enter=True)
    last = box.call("shell_wait_process", session_id="main")
    assert (last["status"], last["exit_code"]) == ("exited", 0)
    assert last["output"] == "begun\nit\ngot it"
    assert box.call("shell_wait_process", session_id="main") == last


def test_a_repl_and_a_password_prompt_can_be_answered(box: RunningBox) -> None:
    box.run("python3 -q", timeout=1)
    box.wait_for_output(">>>")
    box.call("shell_write_input", session_id="main", input_text="print(6 * 7)", press_enter=True)
    box.wait_for_output("\n42")
    box.call("shell_write_input", session_id="main", input_text="exit(3)", press_enter=True)
    assert box.call("shell_wait_process", session_id="main")["exit_code"] == 3
    box.run("read -s -p 'Password: ' word; echo; echo ${#word}", timeout=0.3)
    box.wait_for_output("Password:")
    box.call("shell_write_input", session_id="main", input_text="secret", press_enter=True)
    assert box.call("shell_wait_process", session_id="main")["output"] == "Password: \n6"


def test_input_that_nobody_reads_is_refused(box: RunningBox) -> None:
    box.output("true")
    with pytest.raises(Refused) as refused:
        box.call("shell_write_input", session_id="main", input_text="x", press_enter=True)
    assert refused.value.code == "invalid"
    box.run("sleep 60", timeout=0.1)
    with pytest.raises(Refused) as refused:
        box.call("shell_write_input", session_id="main", input_text="x" * 5000, press_enter=True)
    assert refused.value.code == "invalid"


def test_input_left_over_is_not_run_as_a_command(box: RunningBox) -> None:
    box.run("until [ -e go ]; do sleep 0.05; done", timeout=0.05)
    box.call("shell_write_input", session_id="main", input_text="touch oops\ntouch oops", press_enter=True)
    (box.workspace / "go").touch()
    box.call("shell_wait_process", session_id="main")
    assert box.output("echo next") == "next"
    assert not (box.workspace / "oops").exists()


DEAF = """import signal, sys, time
for number in sys.argv[1:]: signal.signal(int(number), signal.SIG_IGN)
print('ready', flush=True)
time.sleep(600)"""

STUBBORN = {
    "sleeping": ("echo ready; sleep 600; echo not this", 130),
    "pipeline": ("echo ready; sleep 600 | cat", 130),
    "loop of the shell": ("echo ready; while :; do :; done", 130),
    "deaf to interrupt": (f'python3 -c "{DEAF}" 2', 143),
    "deaf to both": (f'python3 -c "{DEAF}" 2 15', 137),
    "stopped": ("echo ready; sh -c 'kill -STOP $$; sleep 600'", None),
}


@pytest.mark.parametrize(("command", "status"), STUBBORN.values(), ids=STUBBORN)
def test_a_running_command_is_killed_and_the_shell_stays(
    shared_box: RunningBox, command: str, status: int | None
) -> None:
    shared_box.output("KEPT=1")
    if shared_box.run(command, timeout=0.5)["status"] == "running":
        shared_box.wait_for_output("ready")
        killed = shared_box.call("shell_kill_process", session_id="main")
        assert killed["status"] == "exited"
        assert status in (None, killed["exit_code"])
        assert "not this" not in killed["output"]
    assert shared_box.output("echo $KEPT") == "1"


def test_a_shell_that_cannot_be_interrupted_is_ended(box: RunningBox) -> None:
    box.run("trap '' INT TERM; echo ready; while :; do sleep 0.05; done", timeout=0.2)
    box.wait_for_output("ready")
    killed = box.call("shell_kill_process", session_id="main", timeout=3)
    assert killed["status"] == "exited"
    assert "without ending its shell" in killed["output"]
    assert box.output("echo again") == "again"


def test_killing_nothing_is_harmless(shared_box: RunningBox) -> None:
    before = shared_box.run("echo a; (exit 4)")
    assert shared_box.call("shell_kill_process", session_id="main") == before


def test_a_process_in_the_background_outlives_its_command(box: RunningBox) -> None:
    pid = int(box.output("sleep 60 & echo $!"))
    assert is_running(pid)
    box.output(f"kill {pid}")
    block_until(lambda: not is_running(pid), "it ends")


def test_a_hundred_megabytes_are_printed_and_the_box_stays_small(box: RunningBox) -> None:
    result = box.run("echo first; base64 -w 100 /dev/zero | head -c 100000000; echo; echo last")
    assert (result["status"], result["exit_code"], result["truncated"]) == ("exited", 0, True)
    assert result["output"].startswith("first\nAAAA")
    assert result["output"].endswith("A\nlast")
    assert re.search(r"\[\.\.\. about 9\d{7} bytes left out \.\.\.\]", result["output"])
    assert len(result["output"]) < 40_000
    assert memory_of(box) < 64 * 1024 * 1024


def test_a_flood_can_be_read_and_killed_while_it_lasts(box: RunningBox) -> None:
    assert box.run("yes", timeout=0.5)["status"] == "running"
    block_until(lambda: box.call("shell_read_output", session_id="main")["truncated"], "the output is cut")
    assert box.output("echo quick", shell="other") == "quick"
    assert box.call("shell_kill_process", session_id="main")["status"] == "exited"
    assert memory_of(box) < 64 * 1024 * 1024


def test_many_large_outputs_use_bounded_memory(box: RunningBox) -> None:
    for _ in range(25):
        box.run("head -c 100000 /dev/zero | tr '\\0' x")
    view = box.ask(op="shell_view", name="main")[0]["result"]
    assert len(view["console_records"]) < 20
    assert sum(len(it["output"]) for it in view["console_records"]) < 600_000


def test_the_number_of_shells_is_bounded_and_an_ended_one_makes_room(box: RunningBox) -> None:
    for n in range(20):
        box.output("true", shell=f"s{n}")
    with pytest.raises(Refused) as refused:
        box.run("true", shell="one more")
    assert refused.value.code == "limit"
    box.run("exit", shell="s7")
    assert box.output("echo in", shell="one more") == "in"


def test_unknown_shells_are_not_found(shared_box: RunningBox) -> None:
    for function in ("shell_read_output", "shell_wait_process", "shell_kill_process"):
        with pytest.raises(Refused) as refused:
            shared_box.call(function, session_id="none")
        assert refused.value.code == "not_found"
    with pytest.raises(Refused) as refused:
        shared_box.ask(op="shell_view", name="none")
    assert refused.value.code == "not_found"


def test_people_see_the_last_commands(box: RunningBox) -> None:
    box.output("echo one")
    box.run("cd /usr; echo two; false")
    box.run("echo three")
    view = box.ask(op="shell_view", name="main")[0]["result"]
    assert view["console_records"] == [
        {"ps1": "ubuntu@sandbox:~/workspace$", "command": "echo one", "output": "one"},
        {"ps1": "ubuntu@sandbox:~/workspace$", "command": "cd /usr; echo two; false", "output": "two"},
        {"ps1": "ubuntu@sandbox:/usr$", "command": "echo three", "output": "three"},
    ]
    assert view["output"].startswith("ubuntu@sandbox:~/workspace$ echo one\none\nubuntu@sandbox:~/workspace$ cd")


def test_a_long_command_arrives_whole_and_one_too_long_is_refused(box: RunningBox) -> None:
    word = "x" * 200_000
    assert box.output(f"a={word}; echo ${{#a}}") == "200000"
    with pytest.raises(Refused) as refused:
        box.run("echo " + "x" * 300_000)
    assert refused.value.code == "invalid"


def test_the_environment_is_clean(box: RunningBox) -> None:
    environment = dict(line.split("=", 1) for line in box.output("env").splitlines() if "=" in line)
    assert environment["HOME"] == str(box.home)
    assert environment["LANG"] == "C.UTF-8"
    assert "PROMPT_COMMAND" not in environment
    assert not [name for name in environment if name.startswith(("MOORAGE", "__moorage", "VIRTUAL_ENV", "PYTEST"))]
    assert box.output("echo ä | wc -m") == "2"


def test_tracing_and_strictness_end_with_their_command(shared_box: RunningBox) -> None:
    assert "+ echo a" in shared_box.output("set -x; echo a")
    assert shared_box.output("echo b") == "b"
    assert shared_box.output("set -u; echo c") == "c"
    assert shared_box.output("echo $NOPE.") == "."


def test_two_commands_at_once_in_one_shell_run_one(box: RunningBox) -> None:
    box.output("true")
    answers: list[dict[str, Any]] = []
    callers = [
        threading.Thread(
            target=lambda: answers.append(
                box.answer_to(
                    "shell_execute",
                    session_id="main",
                    exec_dir="",
                    command="until [ -e go ]; do sleep 0.05; done; echo done",
                )
            )
        )
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    block_until(lambda: len(answers) == 3, "three callers are refused")
    (box.workspace / "go").touch()
    for caller in callers:
        caller.join(HANG_SECONDS)
    assert sorted(it["ok"] for it in answers) == [False, False, False, True]
