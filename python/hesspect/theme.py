"""How pictures look: light and dark, in Okabe and Ito's colours, which colour-blind eyes tell apart too."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Theme:
    name: str
    paper: str
    card: str
    ink: str
    soft: str  #: axes, notes
    line: str  #: curves and their bands
    top: str  #: eigenvalues above zero
    negative: str
    series: tuple[str, ...]  #: several curves side by side
    shades: str  #: matplotlib's name of a colour map for matrices

    def style(self) -> dict[str, Any]:
        """Settings of matplotlib."""
        return {"font.size": 10.5, "axes.edgecolor": self.soft, "axes.labelcolor": self.ink, "xtick.color": self.ink, "ytick.color": self.ink,
                "text.color": self.ink, "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": self.paper,
                "axes.facecolor": self.paper, "savefig.facecolor": self.paper, "legend.labelcolor": self.ink}


LIGHT = Theme("light", "#ffffff", "#f5f7fa", "#1b2430", "#6b7785", "#0072b2", "#d55e00", "#a8578a",
              ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "cividis_r")
DARK = Theme("dark", "#12161c", "#1b212a", "#e6eaf0", "#9aa7b6", "#56b4e9", "#e69f00", "#cc79a7",
             ("#56b4e9", "#e69f00", "#2fc29b", "#cc79a7", "#f0e442", "#d55e00"), "cividis")
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}
