"""A study as one page: what was computed and hit, where and when, what it saved, and how to say so.

The page is a single HTML file that needs no network and no server. Its charts are drawn by Apache
ECharts, which it contains together with the licence.
"""

from fleche.report._previews import Trust
from fleche.report._write import WrittenReport, write_report

__all__ = ["Trust", "WrittenReport", "write_report"]
