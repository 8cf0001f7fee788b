"""Sphinx reads this. ``python docs/build.py`` prepares the pages, then calls it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from _site import project as facts  # noqa: E402

import cxrlib  # noqa: E402

project = "Can a network see COVID-19 in a chest X-ray?"
author = "the authors of the course"
project_copyright = "text CC BY 4.0, code MIT"
release = cxrlib.__version__
language = "en"
root_doc = "index"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "_site.mathsvg",
    "_site.plainwords",
    "_site.terms",
]
exclude_patterns = ["**/.*"]

# -- pages in Markdown -----------------------------------------------------------------------
myst_enable_extensions = ["attrs_inline", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = {
    "http": None,
    "https": None,
    "mailto": None,
    "colab": facts.colab("{{path}}"),
    "binder": facts.binder("{{path}}"),
}

# -- notebooks: executed already, by `cxr run` -------------------------------------------------
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_ipywidgets_js = {}  # the executed lessons hold figures in place of widgets
nb_number_source_lines = False
nb_mime_priority_overrides = [("html", "image/png", 0)]

# -- the package's docstrings ------------------------------------------------------------------
# "set" is matplotlib's, in words that only its own pages understand
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "set",
    "ignore-module-all": True,  # what a module passes on is described where it is written
}
autodoc_typehints = "none"  # numpy-style docstrings say types, with shapes and ranges
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"  # docstrings put names in single backticks
add_module_names = False
nitpick_ignore_regex = [("py:.*", r"(?!cxrlib\.).*")]  # other projects are not indexed here

# -- looks -------------------------------------------------------------------------------------
html_theme = "sphinx_book_theme"
html_title = project
html_short_title = "Chest X-ray course"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_favicon = "_static/favicon.svg"
html_copy_source = True
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_theme_options = {
    "navbar_persistent": [],
    "repository_url": facts.address(),
    "repository_branch": facts.branch(),
    "path_to_docs": "",  # pages lie where their notebooks lie in the repository
    "use_repository_button": True,
    "launch_buttons": {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    },
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": f"<p>{cxrlib.NOT_CLINICAL} Text CC BY 4.0, code MIT.</p>",
    "logo": {"text": "Chest X-ray course"},
}
copybutton_selector = "div.cell_input pre, div.highlight-sh pre, div.highlight-python pre"
