"""HTML mail: a template written in Markdown, a style sheet put into the style attributes of its elements, a text part beside it.

This room is empty until its own issue. What will be here: `HtmlMail`, which needs the extra `html` (`pip install lamson[html]`). It
will make a `MailResponse` out of templates, as `view` does, and know nothing of who sends it.
"""
