"""What a person newly wrote is found in the answers of all kinds of mail programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamson import quotation
from lamson.mail import MailRequest
from tests.cost import assert_costs_less

#: An answer of each kind, "Hello" being all that is new.
ANSWERS = {
    "nothing quoted": "Hello\n",
    "Gmail": "Hello\n\nOn Mon, Apr 2, 2012 at 6:26 PM, Ann <ann@example.com> wrote:\n\n> Hi\n",
    "wrapped": "Hello\n\nOn Dec 16, 2011, at 12:47 PM, Ann Somebody-Longname\n<ann@example.com>\nwrote:\n\n> Hi\n",
    "quote marks lost": "Hello\n\nOn Wed, May 18, 2016 at 11:10 PM Ann <ann@example.com>\nwrote:\n\nHi\n\nthere\n",
    "below the quotation": "On 04/02/2012 06:26 PM, Ann wrote:\n> Hi\n>\n> there\nHello\n",
    "below it, marks lost": "On 04/02/2012 06:26 PM, Ann wrote:\n\nHello\n",
    "without a date": "Hello\n\nann@example.com wrote:\n> Hi\n",
    "Outlook": "Hello\n\n________________________________\nFrom: Ann\nSent: Monday\nTo: Bob\nSubject: Hi\n\nHi\n",
    "Outlook in bold": "Hello\n\n*From:* Ann [mailto:ann@example.com]\n*Sent:* Monday, January 15, 2018 2:15 AM\n*To:* Bob\n\nHi\n",
    "AOL": "Hello\n\n\n-----Original Message-----\nFrom: Ann\n\nHi\n",
    "forwarded": "Hello\n\n---------- Forwarded message ---------\nFrom: Ann\n\nHi\n",
    "signature": "Hello\n\n-- \nAnn\nExample Ltd\n",
    "telephone": "Hello\n\nSent from my iPhone\n",
    "telephone and quotation": "Hello\n\nSent from my iPhone\n\n> On 22 Aug 2015, at 19:21, Ann <ann@example.com> wrote:\n>\n> Hi\n",
    "name": "Hello\n\n-Ann Somebody\n",
    "list": "Hello\n\n_______________________________________________\nusers mailing list\nusers@example.com\n",
    "deep": "Hello\n\n>> Hi\n> Ho\n",
    "no-break spaces": "Hello\xa0\n\n\xa0> Hi\n",
    "German": "Hello\n\nAm 02.04.2012 um 14:20 schrieb Ann <ann@example.com>:\n> Hi\n\nVon meinem iPhone gesendet\n",
    "German Outlook": "Hello\n\n-----Ursprüngliche Nachricht-----\nVon: Ann\nHi\n",
    "German headers": "Hello\n\nVon: Ann <ann@example.com>\nGesendet: Montag\nAn: Bob\nBetreff: Hi\n\nHi\n",
    "French": "Hello\n\nLe 2 avr. 2012 à 14:20, Ann <ann@example.com> a écrit :\n\n> Hi\n\nEnvoyé de mon iPhone\n",
    "French headers": "Hello\n\nDe : Ann\nEnvoyé : lundi\nÀ : Bob\nObjet : Hi\n\nHi\n",
    "Spanish": "Hello\n\nEl lun., 2 abr. 2012 a las 14:20, Ann (<ann@example.com>) escribió:\n\n> Hi\n\nEnviado desde mi iPhone\n",
    "Portuguese": "Hello\n\nEm 2 de abril de 2012 14:20, Ann <ann@example.com> escreveu:\n> Hi\n",
    "Italian": "Hello\n\nIl giorno lun 2 apr 2012 alle ore 14:20 Ann\n<ann@example.com> ha scritto:\n\nHi\n",
    "Dutch": "Hello\n\nOp ma 2 apr. 2012 om 14:20 schreef Ann <ann@example.com>:\n\n> Hi\n\nVerstuurd vanaf mijn iPhone\n",
    "Swedish": "Hello\n\nDen mån 2 apr. 2012 kl 14:20 skrev Ann <ann@example.com>:\n\n> Hi\n\nSkickat från min iPhone\n",
    "Danish headers": "Hello\n\nFra: Ann\nSendt: mandag\nTil: Bob\nEmne: Hi\n\nHi\n",
    "Polish": "Hello\n\nW dniu 02.04.2012 o 14:20, Ann pisze: napisał:\n> Hi\n",
    "Polish headers": "Hello\n\nOd: Ann\nWysłano: poniedziałek\nDo: Bob\nTemat: Hi\n\nHi\n",
    "Czech": "Hello\n\nDne po 2. 4. 2012 v 14:20 odesílatel Ann <ann@example.com> napsal:\n\n> Hi\n",
    "Russian": 'Hello\n02.04.2012 14:20 пользователь "Ann" <\nann@example.com> написал:\n\n> Hi\n',
    "Finnish": "Hello\n\nma 2. huhtik. 2012 klo 14.20 Ann (ann@example.com) kirjoitti:\n\n> Hi\n",
    "Japanese": "Hello\n\n2012年4月2日(月) 14:20 Ann <ann@example.com>:\n\n> Hi\n",
    "Chinese": "Hello\n\nAnn <ann@example.com> 于2012年4月2日周一 下午2:20写道：\n\n> Hi\n",
    "Chinese headers": "Hello\n\n发件人: Ann\n发送时间: 2012年4月2日\n收件人: Bob\n主题: Hi\n\nHi\n",
    "Polish Thunderbird": "Hello\n\nW dniu 02.04.2012 o 14:20, Ann pisze:\n> Hi\n",
    "Russian Gmail": "Hello\n\nпн, 2 апр. 2012 г. в 14:20, Ann <ann@example.com>:\n\n> Hi\n",
    "Russian mail.ru": "Hello\n\nПонедельник, 2 апреля 2012, 14:20 +03:00 от Ann <ann@example.com>:\n\nHi\n",
    "Ukrainian": "Hello\n\nпн, 2 квіт. 2012 р. о 14:20 Ann <ann@example.com> пише:\n\n> Hi\n",
    "Arabic": "Hello\n\nفي الاثنين، 2 أبريل 2012 14:20 Ann <ann@example.com> كتب:\n\nHi\n",
    "Hebrew": "Hello\n\nבתאריך יום ב׳, 2 באפר׳ 2012 ב-14:20 מאת Ann <ann@example.com>:\n\nHi\n",
    "Thai": "Hello\n\nเมื่อ จ. 2 เม.ย. 2012 เวลา 14:20 Ann <ann@example.com> เขียนว่า:\n\nHi\n",
    "Slovak": "Hello\n\npo 2. 4. 2012 o 14:20 Ann <ann@example.com> napísal(a):\n\n> Hi\n",
    "GMX headers": "Hello\n\nGesendet: Montag, 2. April 2012 um 14:20 Uhr\nVon: Ann\nAn: Bob\nBetreff: Hi\n\nHi\n",
    "GMX": "Hello\n\n-------- Original-Nachricht --------\n> Datum: Mon\n> Von: Ann\n\nHi\n",
    "help desk": "Hello\n\n##- Please type your reply above this line -##\n\nHi\n",
    "Proton": "Hello\n\nSent with Proton Mail secure email.\n\nOn Monday, April 2nd, 2012, Ann <ann@example.com> wrote:\n\n> Hi\n",
    "Korean": "Hello\n\n2012년 4월 2일 (월) 오후 2:20, Ann <ann@example.com>님이 작성:\n\n> Hi\n",
}


@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS.keys())
def test_only_what_is_new(text: str) -> None:
    assert quotation.new_text(text) == "Hello"


#: Ordinary text that looks like something else.
ORDINARY = [
    "On your host you can run:\n\n    telnet 127.0.0.1\n\nThis should connect.",
    "a correct -- signature --\nis not here",
    "Sent from my desk, which is easier.",
    "Here it is\n\nSent from my desk, is much easier than my telephone.",
    "- one\n- two\n\n-- three dashes",
    "From: here to there it is far.\n\nYes.",
    "Title\n=====\n\ntext\n\n-----\n\nmore",
    "From now on: yes",
    "Ann wrote:\nnothing",
    "Three\n\n\nblank lines\n\n\n\nstay",
    "    code\n        indented",
    "Dates: 2012-04-02:\n* one",
    "Sent: yesterday\nTo: everybody\n\nas you asked",
    "It was 14:20 when Ann <ann@example.com> came:\nnobody was there",
    "Reply above all to Ann.",
    "",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert quotation.new_text(text + "\n\n") == text


def test_answers_between_quotations_are_kept_apart() -> None:
    text = "Ann wrote on 2 May <ann@example.com>:\n> one?\n\nYes.\n\n\n> two?\n> three?\nNo.\n\n> bye\n"
    assert quotation.new_text(text) == "Yes.\n\nNo."


def test_nothing_new_is_empty() -> None:
    assert quotation.new_text("> Hi\n> there\n") == ""
    assert quotation.new_text("\n\n") == ""


@pytest.mark.parametrize(
    "html",
    [
        '<div>Hello</div><div class="gmail_quote">On Mon, Ann wrote:<blockquote>Hi</blockquote></div>',
        "<p>Hello</p><p>On 2 May 2012, Ann wrote:</p><blockquote type=cite>Hi<blockquote>Ho</blockquote>there</blockquote>",
        '<p>Hello</p><hr id="stopSpelling">From: Ann<br>Hi',
        '<p>Hello</p><div id="divRplyFwdMsg"><b>From:</b> Ann</div><p>Hi</p>',
        '<p>Hello</p><div class="zmail_extra"><div>---- On Mon, Ann wrote ---</div><blockquote>Hi</blockquote></div>',
        '<p>Hello</p><pre class="moz-signature">-- \nJoe</pre>',
        '<div>Hello</div><div id="Signature"><p>Joe, Example Ltd</p></div><div id="appendonsend"></div>Hi',
        "<blockquote>Hi</blockquote><p>Hello</p>",
        "<p>Hello</p><blockquote>never closed",
        "</blockquote><p>Hello</p>",
    ],
)
def test_html_quotations(html: str) -> None:
    message = MailRequest("peer", None, None, f"Content-Type: text/html\n\n{html}")
    assert message.reply_text == "Hello"


def test_plain_text_is_preferred_to_html() -> None:
    parts = "--b\n\nHello\n\n> Hi\n--b\nContent-Type: text/html\n\n<p>Hello in HTML</p>\n--b--\n"
    message = MailRequest("peer", None, None, f"Content-Type: multipart/alternative; boundary=b\n\n{parts}")
    assert message.reply_text == "Hello"
    assert MailRequest("peer", None, None, "Content-Type: image/png\n\nx").reply_text == ""


HOSTILE = ["From: x\n" * 200_000, "On 1 x\n" * 200_000, "On 2:\n\n" * 200_000]
HOSTILE += [("2024 10:00 " + "<a@b" * 90 + ":\n") * 2_600, "Sent: x\n" * 200_000]
HOSTILE += ["<" * 1_000_000, "-" * 2_000_000, "> " * 500_000, " " * 2_000_000]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8].strip())
def test_no_text_takes_long(text: str) -> None:
    html = text + "<a <blockquote>" * 10_000
    assert_costs_less(2, lambda: (quotation.new_text(text), quotation.marked_html(html)))


# -- the corpus: first words, last words and number of lines of what is new in each answer, as a person reads it

TEXTS = {
    "correct_sig": ("this is", "signature.", 1),
    "email_1_1": ("Hi folks", "HTTP API.", 5),
    "email_1_2": ("Hi,", "individually.\"", 28),
    "email_1_3": ("Oh thanks.", "would be great.", 3),
    "email_1_4": ("Awesome!", "with it.", 1),
    "email_1_5": ("One: Here's", "for a while.", 15),
    "email_1_6": ("I get proper", "as well.", 1),
    "email_1_7": (":+1:", ":+1:", 1),
    "email_1_8": ("I will reply", "under this.", 3),
    "email_2_1": ("Outlook with", "a reply", 1),
    "email_2_2": ("Outlook with", "above line", 1),
    "email_2_3": ("Outlook with", ("above line", "unusual format"), 1),
    "email_BlackBerry": ("Here is", "email", 1),
    "email_bullets": ("test 2", "and another", 9),
    "email_gmail": ("This is", "github message.", 1),
    "email_headers_no_delimiter": ("And another", "reply!", 1),
    "email_iPhone": ("Here is", "email", 1),
    "email_long_quote": ("Hi folks", "HTTP API.", 8),
    "email_multi_word_sent_from_my_mobile_device": ("Here is", "email", 1),
    "email_one_is_not_on": ("Thank,", "I run...", 5),
    "email_partial_quote_header": ("On your remote", "not working.", 6),
    "email_sent_from_my_not_signature": ("Here is", "mobile phone.", 3),
    "email_sig_delimiter_in_middle_of_line": ("Hi there!", "kthxbai", 7),
    "greedy_on": ("On your remote", "not working.", 6),
    "pathological": ("I think", "a computer.", 2),
}


def is_right(path: Path) -> bool:
    if path.suffix == ".eml":
        return MailRequest("peer", None, None, path.read_bytes()).reply_text == "Hello"
    first, last, lines = TEXTS[path.stem]
    text = quotation.new_text(path.read_text("utf-8"))
    return text.startswith(first) and text.endswith(last) and text.count("\n") + 1 == lines


def test_the_answers_of_the_corpus(corpus: Path) -> None:
    paths = [path for path in sorted((corpus / "replies").rglob("*")) if path.suffix in (".eml", ".txt")]
    assert len(paths) > 50
    assert [path.name for path in paths if not is_right(path)] == []
