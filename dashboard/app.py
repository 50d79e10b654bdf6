"""The dashboard's entry point: `python -m streamlit run dashboard/app.py`, with the flags of `launch.command`."""

from __future__ import annotations

import streamlit as st

from dashboard import news, overview, payments


def main() -> None:
    """Set up the page and run the one that the URL names."""
    st.set_page_config(page_title="Tapewatch", page_icon=ICON, layout="wide")
    pages = {
        "overview": st.Page(overview.page, title="Overview", url_path="overview", default=True),
        "news": st.Page(news.page, title="News", url_path="news"),
        "payments": st.Page(payments.page, title="Payments", url_path="payments"),
    }
    st.session_state["pages"] = pages
    chosen = st.navigation(list(pages.values()), position="top")
    chosen.run()


# A data URL: an icon by name would be asked for on the internet.
ICON = "data:image/svg+xml," + (
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' "
    "fill='%230B7285'/%3E%3Cpath d='M2 9h3l2-5 3 8 2-3h2' fill='none' stroke='white' stroke-width='1.5'/%3E%3C/svg%3E"
)

if __name__ == "__main__":  # Streamlit runs this file as the main module
    main()
