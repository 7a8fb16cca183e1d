"""What a person newly wrote in an answer, apart from what it quotes and how it is signed.

Mail programs mark quotations in many ways: `>` before each line, a line "On ... wrote:", a block of headers, a rule with "Original Message"
in it, each in the language of its user. This module knows these marks and nothing of messages: text in, text out, one look at each line.
`lamson.mail` asks it for `MailRequest.reply_text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Characters and lines that are read, more than anybody writes.
LONGEST_TEXT, MOST_LINES = 1024 * 1024, 20_000

#: Lines over which an attribution ("On ... wrote:") may be wrapped, its characters, and lines that are looked at for a block of headers.
WRAPPED, LONGEST_ATTRIBUTION, HEADER_LINES = 4, 400, 7

_QUOTED = re.compile(r"[ \t]{0,3}>")
_RULE = re.compile(r"[ \t]*+[-_=*\u2500\u2014]{5,}+[ \t]*+")
_SIGNATURE = re.compile(r"--|\u2014")

_ATTRIBUTION_BEGINS = re.compile(
    r"[ \t*]*(?:On|At|Am|Le|El|Op|Den|Il|Em|Dnia|W dniu|Dne|På|No dia|Vào|Pada|Στις|Ha|[0-9]{1,4}[-./年년 ]|于|在|於)", re.IGNORECASE
)
_WROTE = re.compile(
    r"wrote|writes|schrieb|écrit|escribi[óo]|escreveu|ha scritto|schreef|skrev|napisał|pisze|napsal|napísal|писал|пишет|написав|пише"
    r"|kirjoitti|írta|yazdı|έγραψε|a scris|menulis|đã viết|写道|寫道|書きました|のメッセージ|작성|씀"
)

#: In any language: a date, a time, and an address at the end or before what says "wrote".
_WHEN_AND_WHO = re.compile(r"(?=.*(?:\b(?:19|20)\d\d\b|\d[./]\d{1,2}[./]\d))(?=.*\d[:.]\d\d).*<[^<>\s]+@[^<>\s]+>.{0,40}[:：]\Z")
_ADDRESS_AT_END = re.compile(r"<[^<>\s]+@[^<>\s]+>[ \t]*[:：]\Z")


def _any_of(*lines: str) -> str:
    """A regular expression for any of these words, which are parted by commas."""
    return "|".join(word.strip() for line in lines for word in line.split(","))


#: Between two rows of dashes above what is quoted or forwarded whole.
_ORIGINAL_WORDS = _any_of(
    "original message, forwarded message, begin forwarded message, original appointment, reply message, reply above this line",
    "ursprüngliche (?:nachricht|mail), original-?nachricht, weitergeleitete nachricht, message (?:d'origine|original|transféré)",
    "mensaje original, mensaje reenviado, mensagem original, messaggio originale, oorspronkelijk bericht, ursprungligt meddelande",
    "oprindelig (?:meddelelse|besked), opprinnelig melding, wiadomość oryginalna, oryginalna wiadomość, původní (?:zpráva|e-mail)",
    "исходное сообщение, пересылаемое сообщение, alkuperäinen viesti, eredeti üzenet, özgün ileti",
    "原始邮件, 原始郵件, 转发邮件, 元のメッセージ, 원본 메시지",
)
_ORIGINAL = re.compile(rf"[ \t>*]*+-{{2,}}+[ \t]*+(?:{_ORIGINAL_WORDS})|[ \t]*##.{{0,40}}reply above", re.IGNORECASE)

#: Names of the headers that some programs put above what they quote: the first of them, and those below it.
_FROM_NAMES = _any_of(
    "from, von, de, da, van, från, fra, od, от, від, από, kimden, lähettäjä, feladó, expéditeur, 差出人, 发件人, 寄件者, 보낸 사람"
)
_OTHER_NAMES = _any_of(
    "sent, date, to, subject, cc, reply-to, gesendet, datum, an, betreff, envoyé, à, objet, destinataire, enviado, fecha, para, asunto",
    "inviato, data, assunto, oggetto, verzonden, aan, onderwerp, skickat, till, ämne, sendt, til, emne, wysłano, do, temat, odesláno, komu",
    "předmět, отправлено, дата, кому, тема, lähetetty, vastaanottaja, aihe, tarih, kime, konu, 送信日時, 日時, 宛先, 件名, 发送时间, 日期",
    "收件人, 主题, 傳送時間, 收件者, 主旨, 보낸 날짜, 받는 사람, 제목",
)
_HEADER_FROM = re.compile(rf"[ \t*_]*(?:{_FROM_NAMES})[ \t*_]*[:：]", re.IGNORECASE)
_HEADER_OTHER = re.compile(rf"[ \t*_]*(?:{_OTHER_NAMES})[ \t*_]*[:：]", re.IGNORECASE)

#: How the line begins that a telephone adds; in some languages its name stands first.
_SENT_WORDS = _any_of(
    "sent (?:from|via|with|using), get outlook for, envoyé (?:de(?:puis)?|avec|à partir), enviado (?:desde|do|de|a partir)",
    "inviato (?:da|con), gesendet (?:von|mit), verzonden (?:vanaf|met), verstuurd vanaf, skickat från, sendt fra, wysłane z, odesláno z",
    "отправлено (?:с|из), надіслано з, 发自, 從我的",
)
_SENT_FROM = re.compile(
    rf"[ \t]*(?:(?:{_SENT_WORDS})[^,!?]{{1,80}}|von mein[^,!?]{{1,40}} gesendet|[^,!?]{{1,40}}(?:から送信|에서 보냄))", re.IGNORECASE
)
_PROTON = re.compile(r"Sent (?:with|from) \[?Proton ?Mail[^!?]{0,60}", re.IGNORECASE)
_SIGN_OFF = re.compile(r"[-\u2013\u2014]{1,2}[^\W\d_][\w.'-]*(?: [^\W\d_][\w.'-]*){0,3}")
_LIST_FOOTER = re.compile(r"mailing list|unsubscribe|listinfo", re.IGNORECASE)

#: Where a mail program's quotation begins, or the signature that it writes above.
_HTML_QUOTE = re.compile(
    r"<[a-z]+[^<>]{0,500}?(?:gmail_quote|gmail_extra|yahoo_quoted|moz-cite-prefix|divRplyFwdMsg|appendonsend|OLK_SRC_BODY_SECTION"
    r"|protonmail_quote|stopSpelling|SkyDrivePlaceholder|reply-intro|zmail_extra|moz-signature|gmail_signature|id=[\"']?signature\b)",
    re.IGNORECASE,
)
_BLOCKQUOTE = re.compile(r"<(/?)blockquote\b[^<>]*+>", re.IGNORECASE)


def new_text(text: str) -> str:
    """What is neither quoted nor signature. Text between two quotations is kept, parted by a blank line; all else as it was written."""
    lines = [line.rstrip() for line in text[:LONGEST_TEXT].replace("\xa0", " ").split("\n", MOST_LINES)[:MOST_LINES]]
    kept: list[str] = []
    for line in _unquoted(lines):
        while line is None and kept and not kept[-1]:
            kept.pop()
        kept.append(line or "")
    return "\n".join(_without_signature(kept)).strip("\n")


def _unquoted(lines: list[str]) -> Iterator[str | None]:
    """The lines that quote nothing, and None for each stretch left out."""
    gap, at = False, 0
    while at < len(lines):
        skip = _quotation(lines, at)
        if skip == 0:
            if lines[at] or not gap:
                yield lines[at]
                gap = False
        else:
            yield None
            gap = True
        at += skip or 1


def _quotation(lines: list[str], at: int) -> int:
    """How many lines from here on are a quotation: 0 for none, all that are left where nothing tells its end."""
    line, left = lines[at], len(lines) - at
    if not line:
        return 0
    if _QUOTED.match(line):
        return 1
    if _ORIGINAL.match(line) or _is_header_block(lines, at) or _SIGNATURE.fullmatch(line):
        return left
    if _RULE.fullmatch(line):
        return left if _is_end_after_rule(lines, at + 1) else 0
    wrapped = _attribution(lines, at)
    if not wrapped or _is_quoted(lines, at + wrapped):
        return wrapped
    return left if any(lines[:at]) else wrapped


def _attribution(lines: list[str], at: int) -> int:
    """Over how many lines "On Monday Ann wrote:" stands here; 0 when it does not."""
    begins, joined = _ATTRIBUTION_BEGINS.match(lines[at]), ""
    for count, line in enumerate(lines[at : at + (WRAPPED if begins else 1)], 1):
        joined = f"{joined} {line}".strip()
        if not line or len(joined) > LONGEST_ATTRIBUTION:
            return 0
        if line.endswith((":", "：")) and _says_who_wrote(joined, begins is not None):
            return count
    return 0


def _says_who_wrote(joined: str, begins_well: bool) -> bool:
    if begins_well and _ADDRESS_AT_END.search(joined) and any(map(str.isdigit, joined)):
        return True
    if _WHEN_AND_WHO.match(joined):
        return True
    return _WROTE.search(joined) is not None and ("@" in joined or (begins_well and any(map(str.isdigit, joined))))


def _following(lines: list[str], at: int) -> Iterator[str]:
    """The next lines that are not empty."""
    return (line for line in lines[at : at + HEADER_LINES] if line)


def _is_quoted(lines: list[str], at: int) -> bool:
    return _QUOTED.match(next(_following(lines, at), "")) is not None


def _is_header_block(lines: list[str], at: int) -> bool:
    """Outlook's: From, and below it at least two of Sent, To, Subject; or Sent first and From among them."""
    below = lines[at + 1 : at + HEADER_LINES]
    if not _HEADER_FROM.match(lines[at]) and not (_HEADER_OTHER.match(lines[at]) and any(map(_HEADER_FROM.match, below))):
        return False
    return sum(_HEADER_OTHER.match(line) is not None for line in below) >= 2


def _is_end_after_rule(lines: list[str], at: int) -> bool:
    """Below a rule stand the headers of what is quoted, or a mailing list's footer."""
    at += next((skip for skip, line in enumerate(lines[at : at + HEADER_LINES]) if line), 0)
    if at < len(lines) and _is_header_block(lines, at):
        return True
    return any(_LIST_FOOTER.search(line) for line in lines[at : at + 3])


def _without_signature(lines: list[str]) -> list[str]:
    """Without the last lines that a device adds, and a name with a dash before it."""
    end = len(lines)
    while end and (not lines[end - 1] or _is_signature(lines, end - 1)):
        end -= 1
    return lines[:end]


def _is_signature(lines: list[str], at: int) -> bool:
    """It stands alone, is not all there is, and is no sentence."""
    line = lines[at]
    if at == 0 or lines[at - 1] or (line.endswith(".") and not _PROTON.fullmatch(line)):
        return False
    return (_SENT_FROM.fullmatch(line) or _SIGN_OFF.fullmatch(line)) is not None


def marked_html(source: str) -> str:
    """HTML with its quotations turned into a line that begins with `>`: what follows a mark of a mail program, and every blockquote."""
    if found := _HTML_QUOTE.search(source):
        source = source[: found.start()]
    out, depth, at = [], 0, 0
    for tag in _BLOCKQUOTE.finditer(source):
        if not depth:
            out.append(source[at : tag.start()])
        depth = max(depth + (-1 if tag[1] else 1), 0)
        if not depth:
            out.append("<br>&gt;<br>")
            at = tag.end()
    return "".join(out) + (source[at:] if not depth else "")
