"""Texts that try to become script, markup or a request: families of tags, schemes and disguises, combined."""
# ruff: noqa: E501

from __future__ import annotations

TAGS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<iframe src=javascript:alert(1)>",
    "<body onload=alert(1)>", "<video><source onerror=alert(1)>", "<details open ontoggle=alert(1)>", "<input autofocus onfocus=alert(1)>",
    "<math><mtext><script>alert(1)</script></mtext></math>", "<object data=javascript:alert(1)>", "<embed src=//evil.example>",
    "<link rel=stylesheet href=//evil.example>", "<base href=//evil.example>", "<meta http-equiv=refresh content=0>",
    "<form action=//evil.example><button>", "<a href=javascript:alert(1)>x</a>", "<style>@import '//evil.example'</style>",
    "<p style=background:url(//evil.example)>", "<marquee onstart=alert(1)>", "<template><img src=x onerror=alert(1)></template>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">", "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math href=javascript:alert(1)>x</math>", "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
]  # fmt: skip
SCHEMES = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "&#106;avascript:alert(1)", "javascript&colon;alert(1)",
    "data:text/html,<script>alert(1)</script>", "vbscript:msgbox(1)", "file:///etc/passwd", "blob:x", " javascript:alert(1)",
    "\x01javascript:alert(1)", "javascript\u200b:alert(1)", "data:image/svg+xml,<svg onload=alert(1)>",
]  # fmt: skip
DISGUISES = [
    "{}",
    "a {} b",
    "`{}`",
    "**{}**",
    "[x]({})",
    "![x]({})",
    "[x](<{}>)",
    "<{}>",
    "\\{}",
    "$\\text{{{}}}$",
    "\\({}\\)",
]
HOSTILE = [
    *(d.format(t) for t in TAGS for d in DISGUISES[:5]),
    *(d.format(s) for s in SCHEMES for d in DISGUISES),
    *(t.replace("<", "&lt;") for t in TAGS[:8]),
    *(t.upper() for t in TAGS[:12]),
    "[x]: javascript:alert(1)\n\n[x]", "<http://x.example/\"onmouseover=alert(1)>", "[a](http://x\" onclick=\"alert(1))", "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>", "<?php echo 1 ?>", "</p><script>alert(1)</script>", "\x00<script>alert(1)</script>",
]  # fmt: skip
