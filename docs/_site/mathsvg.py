r"""Formulas as pictures made of lines, for readers; as MathML, for those who listen.

A Sphinx extension. In Markdown, ``$x^2$`` and ``$$ ... $$`` hold LaTeX. MathML alone would look
right only where a mathematical font is installed; a script such as MathJax would have to be
shipped. An SVG in the page needs neither.
"""

from docutils import nodes

SIZE = 17  # pixels, as the text around


def _drawn(formula: str, inline: bool) -> str:
    from latex2mathml.converter import convert
    from ziamath import Latex

    drawn = Latex(formula, size=SIZE, color="currentColor", inline=inline)
    down = f' style="vertical-align: {drawn.getyofst():.1f}px"' if inline else ""
    picture = drawn.svg().replace("<svg", f'<svg aria-hidden="true"{down}', 1)
    spoken = convert(formula, display="inline" if inline else "block")
    return f'{picture}<span class="visually-hidden">{spoken}</span>'


def _visit_inline(self, node):
    self.body.append(f'<span class="formula-inline">{_drawn(node.astext(), inline=True)}</span>')
    raise nodes.SkipNode


def _visit_block(self, node):
    self.body.append(f'<div class="formula">{_drawn(node.astext(), inline=False)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer, and choose it."""
    app.add_html_math_renderer("svg", (_visit_inline, None), (_visit_block, None))
    app.config.html_math_renderer = "svg"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
