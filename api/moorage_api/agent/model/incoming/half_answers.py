"""Recognise answers that are not what they seem: an announcement, or a call in the model's own notation."""

from __future__ import annotations

import re
from collections.abc import Collection

CALL_NOTATION = re.compile(
    r"<\|?/?(tool_?calls?|function_?calls?|tool_use|tool_code|python_tag|tool_calls_section|tool_calls_begin"
    r"|plugin|"
    r"action_start|start_action|start_function_call|longcat_tool_call|seed:tool_call)(?=[^\w]|_)"
    r"|<(function|invoke|tool|parameter|minimax:tool_call|antml:invoke)[= >]"
    r"|<｜+(tool▁call|DSML)|\[(TOOL_CALLS|TOOL_CALL|TOOL_REQUEST)\]|<\|channel\|>.{0,40}to=|to=functions\."
    r"|```(tool_code|tool_call|tool_calls)|^Action: [^\n]++\nAction Input:|^functools\s*+\["
    r'|^(?:```(?:json)?+\s*+)?+(?:\[\s*+)?+\{\s*+"(name|function|tool|tool_name|tool_call_id|action)"\s*+:',
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
"""The notations of Hermes, Qwen, Llama, Mistral, DeepSeek, Kimi, GLM, MiniMax, gpt-oss, Gemma, InternLM, Cohere,
Nemotron, Phi and ReAct, and plain JSON, in a text without indents and blank lines.

Parts such as `*+` give nothing back, so that the time is linear."""
MENTION = re.compile(r"(?:[^\S\n]*+[\w>|｜\]]{1,30}>?)?[^\S\n]++[^\W\d_]{2}(?![^\n]{0,1000}[{<])")
"""What follows a notation that is only mentioned in a sentence: further words on the same line."""
FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[^\n]*+\n.*?(?:^[ \t]*+\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")

HEAD = (
    r"(?:(?:sure|ok|okay|alright|all right|great|now|first|next|then|perfect|got it|understood|certainly"
    r"|of course|good|"
    r"right|thanks|yes|natürlich|gut|d'accord|bien|claro|bueno|perfecto|certo|va bene|hmm|well|好的|当然|好"
    r"|明白了|хорошо)"
    r"[,.!:…，。！\s]\s*){0,3}"
)
VERBS = (
    r"create|write|run|execute|open|read|check|look|search|find|fetch|download|install|start|begin|proceed|go"
    r"|build|"
    r"generate|make|use|try|call|navigate|visit|list|inspect|analy[sz]e|update|save|load|test|verify|compute"
    r"|plot|get|do|"
    r"click|fill|view|take|examine|review|continue|set|add|fix|retry|parse|convert|extract|query|browse|first"
    r"|now"
)
ENGLISH = (
    r"(?:i|we)(?:'|’)ll\b|(?:i|we) will\b|(?:i|we) shall\b|(?:i am|i'm|i’m|we are|we're"
    r"|we’re) (?:now )?(?:going to|about to)\b"
    rf"|(?:i|we) (?:now )?(?:need|have) to (?:first )?(?:{VERBS})\b|(?:i am|i'm|i’m) now \w+ing\b|let me\b"
    rf"|let's\b|let’s\b"
    r"|(?:proceeding|moving on|going) to\b|starting (?:by|with)\b|one moment\b|please wait\b|hold on\b"
    r"|stand by\b"
)
LATIN = (
    r"ich werde\b|(?:jetzt|nun|zuerst|als nächstes|als erstes|zunächst) \w+ ich\b|lass(?:en sie)? (?:mich"
    r"|uns)\b"
    r"|je vais\b|nous allons\b|laisse(?:z)?-moi\b|commençons\b|je commence\b|maintenant,? je\b|je m'en occupe\b"
    r"|(?:ahora |primero,? )?(?:voy|vamos) a\b|(?:déjame|dejame|permíteme|permítame)\b|procederé\b|(?:crear"
    r"|har|escribir)é\b"
    r"|(?:agora |primeiro,? )?(?:vou|irei|vamos) \w+[aeio]r\b|deix[ea](?:-me| eu)\b"
    r"|(?:adesso|ora|prima)\s+(?:creo|vado|apro|leggo|eseguo|scrivo|cerco|procedo|controllo)\b|vado a\b"
    r"|\w+erò\b|lasciami\b"
    r"|ik (?:ga|zal)\b|laat me\b|laten we\b|(?:teraz|zaraz) \w+|pozwól\b|(?:utworz|stworz|zrobi)ę\b|(?:nyní"
    r"|teď) \w+ím\b"
    r"|şimdi \w+|\w+(?:acağım|eceğim)\b|jag (?:ska|kommer att)\b|låt mig\b|jeg (?:skal|vil)\b|l(?:a|ad) meg?\b"
    r"|tôi sẽ\b|để tôi\b|(?:saya|aku) akan\b|mari kita\b|biarkan saya\b"
)
OTHERS = (
    r"сейчас (?:я|создам|сделаю|проверю|открою|посмотрю)|теперь я|давайте|я (?:сейчас|создам|сделаю|буду"
    r"|собираюсь|проверю)"
    r"|позвольте|приступаю|зараз я|я створю"
    r"|我(?:将|將|会|會|来|來|先|要|现在|現在|去|马上|需要先)|让我|讓我|让我们|接下来(?:我|将|会|让|开始|读"
    r"|创|执|运|检)"
    r"|(?:现在|現在|首先|下面)(?:我|开始|開始|来|來|让我|讓我|创建|執行|执行|运行|检查)|正在(?:创建|执行|运行"
    r"|读取|为您)|(?:请)?稍等"
    r"|これから|まず(?:は|、)|それでは、|.*(?:作成|実行|確認|開始|検索|調査|取得)(?:し|して(?:み"
    r"|いき))ます[。!]?$|少々お待ち"
    r"|(?:이제|먼저|지금) .*겠습니다|.*(?:하|해 보|해보|만들|드리)겠습니다[.!]?$|잠시만"
    r"|س(?:أ|وف أ)|دعني|मैं .*(?:ूंगा|ूँगा|ूंगी|ऊंगा|ऊँगा)|ฉันจะ|ผมจะ"
)
ANNOUNCEMENT = re.compile(f"{HEAD}(?:{ENGLISH}|{LATIN}|{OTHERS})", re.IGNORECASE)
NO_ANNOUNCEMENT = re.compile(
    r"let me (?:know|explain|say|note|clarify|point out|add|stress|summari[sz]e|recap)\b"
    r"|(?:i|we)(?:(?:'|’)ll| will| shall) (?:be (?:happy|glad|here|around|available|able|waiting|ready"
    r"|standing by|on)\b"
    r"|wait\b|await\b|let you\b|leave\b|need (?:you|the|a|an|more|some)\b|stop here\b|keep (?:that|this|it"
    r"|you|an)\b"
    r"|remember\b|assume\b|not\b|never\b|always\b|stay\b|stand by\b|gladly\b|help\b|follow up\b)"
    r"|\b(?:if|once|when|whenever|after|as soon as|unless|until) (?:you|they|the user|we hear)\b"
    r"|(?:如果|当|等)您?你?(?:需要|想|愿意|告诉|回复|确认)|wenn (?:sie|du)\b|si (?:vous|tu|quieres|desea"
    r"|usted)\b|se (?:você|vuoi)\b",
    re.IGNORECASE,
)
"""Sentences that begin like an announcement, and only offer help or depend on the user."""
MAX_ANNOUNCEMENT_CHARS = 800
MAX_LEAD_IN_CHARS = 200
"""A text up to this length that ends with a colon lacks what it leads to."""
SENTENCE_END = re.compile(r"(?<=[.!?:。！？：])\s*|\n+")


def is_call_notation(text: str, names: Collection[str] = ()) -> bool:
    """The text contains a tool call that the server did not recognise, of a function in `names` or in a known notation.

    A call that is quoted does not count: in inline code, in a code block with words behind it, or as a mere mention.
    """
    plain = _join_lines(_remove_quotes(text))
    for match in CALL_NOTATION.finditer(plain):
        is_first_of_line = plain[match.start() - 1 : match.start()] in ("", "\n")
        if is_first_of_line or not MENTION.match(plain, match.end()):
            return True
    return bool(names) and _names_call(plain, names)


def is_nothing_but_notation(text: str, names: Collection[str] = ()) -> bool:
    """The text begins with a call, so it cannot be meant as words."""
    first = _join_lines(text.strip().partition("\n\n")[0])
    return bool(CALL_NOTATION.match(first)) or (bool(names) and _names_call(first, names, only_first=True))


def is_announcement(text: str) -> bool:
    """The text says what its author is about to do: it begins so, or it ends so."""
    if len(text) > MAX_ANNOUNCEMENT_CHARS:
        return False
    stripped = text.strip()
    if len(stripped) <= MAX_LEAD_IN_CHARS and stripped.endswith((":", "：")):
        return True
    sentences = [sentence.strip() for sentence in SENTENCE_END.split(stripped) if sentence.strip()]
    return any(
        ANNOUNCEMENT.match(sentence) and not NO_ANNOUNCEMENT.search(sentence)
        for sentence in (*sentences[:1], *sentences[-1:])
    )


def _join_lines(text: str) -> str:
    """The text without indents and blank lines, which cost time and say nothing about calls."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _remove_quotes(text: str) -> str:
    """The text without inline code, and without code blocks that are followed by words."""
    fences = list(FENCE.finditer(text))
    ends = [*(fence.start() for fence in fences[1:]), len(text)]
    between = [text[fence.end() : end] for fence, end in zip(fences, ends, strict=False)]
    quotes = max((place for place, words in enumerate(between, 1) if words.strip()), default=0)
    if quotes:
        text = "".join([text[: fences[0].start()], *between[: quotes - 1], text[fences[quotes - 1].end() :]])
    return INLINE_CODE.sub("", text)


BEFORE_NAME = (
    r"(?:```\w*+\n|\[|<|\*\*|await |print\(|call:|functions\.|default_api\.|called "
    r"|tool[ _]call(?:[^\w`\[<*]|`(?!``)|\*(?!\*)){1,4}+){0,20}+"
)
"""What models write before the name of a function. No two parts begin alike, so there is one way to read a text."""
AFTER_NAME = r"\s*+(?:[({\[>\]]|:\s*+\{)"


def _names_call(text: str, names: Collection[str], *, only_first: bool = False) -> bool:
    """A line begins with a call of a function that exists: as Python, as a tag, or as the history shows calls."""
    name = "|".join(map(re.escape, names))
    pattern = re.compile(rf"^{BEFORE_NAME}(?:{name}){AFTER_NAME}", re.MULTILINE | re.IGNORECASE)
    return bool(pattern.match(text) if only_first else pattern.search(text))
