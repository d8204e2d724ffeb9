"""The open fonts of the glyphs and words domains, and their splits.

Every font is a Debian 12 package at a pinned version, fetched with `apt-get download` and unpacked
beside the tools' other intermediate files; nothing is installed. A family belongs to one split for
good, in both domains. Families whose outlines share an ancestor are kept in one split: the DejaVus
(Bitstream Vera); the Noto Sans of all scripts and Open Sans (Droid Sans); the Noto Serif of all
scripts; FreeFont, Tinos and Cousine (Times, Helvetica); Klee One and LXGW WenKai; M PLUS 1 and 2.

Licences are those of the packages' copyright files, per font file where they differ. Fonts under a
plain GPL, without the font exception, are left out, so that nobody has to ask whether a picture of
a glyph is a derived work.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont
from sheet import WORK

VERSIONS = {
    "culmus": "0.133-1",
    "fonts-arphic-ukai": "0.2.20080216.2-5",
    "fonts-b612": "1.008-3",
    "fonts-baekmuk": "2.2-13",
    "fonts-cabin": "1.5-3",
    "fonts-cantarell": "0.303.1-1",
    "fonts-cardo": "1.04-3",
    "fonts-comfortaa": "3.001-3",
    "fonts-comic-neue": "2.51-4",
    "fonts-courier-prime": "0+git20190115-3",
    "fonts-croscore": "20201225-1",
    "fonts-crosextra-caladea": "20200211-1",
    "fonts-dancingscript": "1.2-2",
    "fonts-dejavu-core": "2.37-6",
    "fonts-dejavu-extra": "2.37-6",
    "fonts-dosis": "1.7-3",
    "fonts-ebgaramond": "0.016+git20210310.42d4f9f2-1",
    "fonts-firacode": "6.2-2",
    "fonts-freefont-ttf": "20120503-10",
    "fonts-go": "0~20170330-1",
    "fonts-hosny-amiri": "0.113-1",
    "fonts-hosny-thabit": "0.02-2.1",
    "fonts-inter": "4.0~beta7+ds-1",
    "fonts-jetbrains-mono": "2.242+ds-3",
    "fonts-karla": "20201218-1",
    "fonts-klee": "1.000-20210121-2",
    "fonts-lato": "2.0-2.1",
    "fonts-league-spartan": "2.210-1",
    "fonts-linuxlibertine": "5.3.0-6",
    "fonts-lohit-deva": "2.95.4-5",
    "fonts-lxgw-wenkai": "1.250+repack-1",
    "fonts-manrope": "4.504+git20201211-2",
    "fonts-morisawa-bizud-gothic": "1.05-2",
    "fonts-morisawa-bizud-mincho": "1.05-2",
    "fonts-mph-2b-damase": "001.000.dfsg.2+ds1-7",
    "fonts-mplus": "063+git20221017+ds-1",
    "fonts-nanum": "20200506-1",
    "fonts-noto-cjk": "1:20220127+repack1-1",
    "fonts-noto-core": "20201225-1",
    "fonts-noto-extra": "20201225-1",
    "fonts-oldstandard": "2.2really-4",
    "fonts-open-sans": "1.11-2",
    "fonts-play": "1.002+20150307.1-0.1",
    "fonts-quicksand": "0.2016-2.1",
    "fonts-roboto-slab": "1.100263+20170512-2",
    "fonts-roboto-unhinted": "2:0~20170802-3",
    "fonts-samyak-deva": "1.2.2-6",
    "fonts-sawarabi-mincho": "20220815-1",
    "fonts-sil-annapurna": "1.204-2",
    "fonts-sil-ezra": "2.51-9",
    "fonts-sil-gentiumplus": "6.101-1",
    "fonts-sil-harmattan": "2.000-1",
    "fonts-sil-lateef": "2.000-1",
    "fonts-sil-scheherazade": "2.100-2.1",
    "fonts-tlwg-garuda-ttf": "1:0.7.3-1",
    "fonts-tlwg-kinnari-ttf": "1:0.7.3-1",
    "fonts-tlwg-laksaman-ttf": "1:0.7.3-1",
    "fonts-tlwg-loma-ttf": "1:0.7.3-1",
    "fonts-tlwg-mono-ttf": "1:0.7.3-1",
    "fonts-tlwg-purisa-ttf": "1:0.7.3-1",
    "fonts-tlwg-umpush-ttf": "1:0.7.3-1",
    "fonts-vollkorn": "4.105-2",
    "fonts-woowa-bm": "20211009-2",
    "fonts-wqy-zenhei": "0.9.45-8",
    "fonts-yusei-magic": "1.000-20210130-2",
}

OFL = "OFL-1.1"
APACHE = "Apache-2.0"
VERA = "Bitstream Vera (DejaVu changes: public domain)"
GPL_FONT = "GPL-2+ with font exception"


@dataclass(frozen=True)
class Family:
    """A type family: all of its faces are in one split."""

    package: str
    licence: str
    split: str


@dataclass(frozen=True)
class Face:
    """One font file of a family and the scripts that it draws in the glyphs domain."""

    family: str
    file: str
    scripts: str  # space-separated names of glyphs.SCRIPTS; "" for faces of words only
    words: bool = False  # does it also draw words?
    index: int = 0  # in a .ttc collection


FAMILIES = {
    # --- train ---
    "DejaVu Sans": Family("fonts-dejavu-core", VERA, "train"),
    "DejaVu Serif": Family("fonts-dejavu-core", VERA, "train"),
    "DejaVu Sans Mono": Family("fonts-dejavu-core", VERA, "train"),
    "DejaVu Sans Condensed": Family("fonts-dejavu-extra", VERA, "train"),
    "DejaVu Serif Condensed": Family("fonts-dejavu-extra", VERA, "train"),
    "Noto Sans": Family("fonts-noto-core", OFL, "train"),
    "Noto Sans (weights and widths)": Family("fonts-noto-extra", OFL, "train"),
    "Noto Kufi Arabic": Family("fonts-noto-core", OFL, "train"),
    "Noto Looped Thai": Family("fonts-noto-core", OFL, "train"),
    "Noto Looped Thai (weights and widths)": Family("fonts-noto-extra", OFL, "train"),
    "Noto Sans CJK": Family("fonts-noto-cjk", OFL, "train"),
    "Open Sans": Family("fonts-open-sans", APACHE, "train"),
    "Roboto": Family("fonts-roboto-unhinted", APACHE, "train"),
    "Roboto Slab": Family("fonts-roboto-slab", APACHE, "train"),
    "Lato": Family("fonts-lato", OFL, "train"),
    "EB Garamond": Family("fonts-ebgaramond", OFL, "train"),
    "Linux Libertine": Family("fonts-linuxlibertine", "OFL-1.1 or " + GPL_FONT, "train"),
    "JetBrains Mono": Family("fonts-jetbrains-mono", APACHE, "train"),
    "Comfortaa": Family("fonts-comfortaa", OFL, "train"),
    "Inter": Family("fonts-inter", OFL, "train"),
    "Comic Neue": Family("fonts-comic-neue", OFL, "train"),
    "Dosis": Family("fonts-dosis", OFL, "train"),
    "Cabin": Family("fonts-cabin", OFL, "train"),
    "Caladea": Family("fonts-crosextra-caladea", APACHE, "train"),
    "Dancing Script": Family("fonts-dancingscript", OFL, "train"),
    "Cardo": Family("fonts-cardo", OFL, "train"),
    "Hadasim CLM": Family("culmus", "GPL-2 with font exception", "train"),
    "Keter YG": Family("culmus", "GPL-2 with font exception", "train"),
    "Scheherazade": Family("fonts-sil-scheherazade", OFL, "train"),
    "Lateef": Family("fonts-sil-lateef", OFL, "train"),
    "Thabit": Family("fonts-hosny-thabit", OFL, "train"),
    "Lohit Devanagari": Family("fonts-lohit-deva", OFL, "train"),
    "Samyak Devanagari": Family("fonts-samyak-deva", "GPL-3+ with font exception", "train"),
    "Garuda": Family("fonts-tlwg-garuda-ttf", GPL_FONT, "train"),
    "Loma": Family("fonts-tlwg-loma-ttf", GPL_FONT, "train"),
    "Tlwg Mono": Family("fonts-tlwg-mono-ttf", GPL_FONT, "train"),
    "MPH 2B Damase": Family("fonts-mph-2b-damase", "public domain", "train"),
    "Nanum Gothic": Family("fonts-nanum", OFL, "train"),
    "Nanum Barun Gothic": Family("fonts-nanum", OFL, "train"),
    "Nanum Square Round": Family("fonts-nanum", OFL, "train"),
    "BM Hanna Air": Family("fonts-woowa-bm", OFL, "train"),
    "BM Jua": Family("fonts-woowa-bm", OFL, "train"),
    "BM DoHyeon": Family("fonts-woowa-bm", OFL, "train"),
    "BM Yeonsung": Family("fonts-woowa-bm", OFL, "train"),
    "BIZ UDGothic": Family("fonts-morisawa-bizud-gothic", OFL, "train"),
    "M PLUS 1": Family("fonts-mplus", OFL, "train"),
    "M PLUS 2": Family("fonts-mplus", OFL, "train"),
    "WenQuanYi Zen Hei": Family(
        "fonts-wqy-zenhei", "GPL-2 with font embedding exception, M+ FONTS License", "train"
    ),
    "Yusei Magic": Family("fonts-yusei-magic", OFL, "train"),
    "AR PL UKai": Family("fonts-arphic-ukai", "Arphic Public License", "train"),
    # --- val ---
    "FreeSerif": Family("fonts-freefont-ttf", "GPL-3+ with font exception", "val"),
    "FreeSans": Family("fonts-freefont-ttf", "GPL-3+ with font exception", "val"),
    "FreeMono": Family("fonts-freefont-ttf", "GPL-3+ with font exception", "val"),
    "Tinos": Family("fonts-croscore", OFL, "val"),
    "Cousine": Family("fonts-croscore", OFL, "val"),
    "Manrope": Family("fonts-manrope", OFL, "val"),
    "Karla": Family("fonts-karla", OFL, "val"),
    "Fira Code": Family("fonts-firacode", OFL, "val"),
    "Purisa": Family("fonts-tlwg-purisa-ttf", GPL_FONT, "val"),
    "Laksaman": Family("fonts-tlwg-laksaman-ttf", GPL_FONT, "val"),
    "Baekmuk Batang": Family("fonts-baekmuk", "Baekmuk (MIT-like)", "val"),
    "Baekmuk Dotum": Family("fonts-baekmuk", "Baekmuk (MIT-like)", "val"),
    "Sawarabi Mincho": Family("fonts-sawarabi-mincho", "OFL-1.1 or CC-BY-SA-3.0", "val"),
    # --- test ---
    "Noto Serif": Family("fonts-noto-core", OFL, "test"),
    "Noto Serif (weights and widths)": Family("fonts-noto-extra", OFL, "test"),
    "Noto Naskh Arabic": Family("fonts-noto-core", OFL, "test"),
    "Noto Serif CJK": Family("fonts-noto-cjk", OFL, "test"),
    "Gentium Plus": Family("fonts-sil-gentiumplus", OFL, "test"),
    "Cantarell": Family("fonts-cantarell", OFL, "test"),
    "Vollkorn": Family("fonts-vollkorn", OFL, "test"),
    "Play": Family("fonts-play", OFL, "test"),
    "Old Standard": Family("fonts-oldstandard", "OFL-1.0", "test"),
    "Quicksand": Family("fonts-quicksand", OFL, "test"),
    "Courier Prime": Family("fonts-courier-prime", OFL, "test"),
    "League Spartan": Family("fonts-league-spartan", OFL, "test"),
    "B612": Family("fonts-b612", "OFL-1.1 and EPL-2.0 and EDL-1.0", "test"),
    "Go": Family("fonts-go", "BSD-3-Clause", "test"),
    "Ezra SIL": Family("fonts-sil-ezra", OFL, "test"),
    "Shofar": Family("culmus", "GPL-2 with font exception", "test"),
    "Amiri": Family("fonts-hosny-amiri", OFL, "test"),
    "Harmattan": Family("fonts-sil-harmattan", OFL, "test"),
    "Annapurna SIL": Family("fonts-sil-annapurna", OFL, "test"),
    "Kinnari": Family("fonts-tlwg-kinnari-ttf", GPL_FONT, "test"),
    "Umpush": Family("fonts-tlwg-umpush-ttf", GPL_FONT, "test"),
    "Nanum Myeongjo": Family("fonts-nanum", OFL, "test"),
    "BIZ UDMincho": Family("fonts-morisawa-bizud-mincho", OFL, "test"),
    "Klee One": Family("fonts-klee", OFL, "test"),
    "LXGW WenKai": Family("fonts-lxgw-wenkai", OFL, "test"),
}

LGC = "latin greek cyrillic"
JAPANESE = "han kana"
EXTRA_SANS = "Noto Sans (weights and widths)"
EXTRA_SERIF = "Noto Serif (weights and widths)"
EXTRA_THAI = "Noto Looped Thai (weights and widths)"

FACES = [
    # --- train ---
    Face("DejaVu Sans", "DejaVuSans.ttf", f"{LGC} hebrew arabic armenian georgian", True),
    Face("DejaVu Sans", "DejaVuSans-Bold.ttf", "hebrew arabic armenian georgian", True),
    Face("DejaVu Serif", "DejaVuSerif.ttf", "armenian georgian", True),
    Face("DejaVu Serif", "DejaVuSerif-Bold.ttf", f"{LGC} armenian georgian"),
    Face("DejaVu Sans Mono", "DejaVuSansMono.ttf", f"{LGC} arabic armenian georgian", True),
    Face("DejaVu Sans Mono", "DejaVuSansMono-Bold.ttf", "armenian georgian"),
    Face("DejaVu Sans Condensed", "DejaVuSansCondensed-Oblique.ttf", "armenian georgian", True),
    Face("DejaVu Serif Condensed", "DejaVuSerifCondensed-Italic.ttf", "armenian georgian"),
    Face("Noto Sans", "NotoSans-Regular.ttf", LGC, True),
    Face("Noto Sans", "NotoSans-Bold.ttf", "", True),
    Face("Noto Sans", "NotoSansHebrew-Regular.ttf", "hebrew"),
    Face("Noto Sans", "NotoSansHebrew-Bold.ttf", "hebrew"),
    Face("Noto Sans", "NotoSansArabic-Regular.ttf", "arabic"),
    Face("Noto Sans", "NotoSansDevanagari-Regular.ttf", "devanagari"),
    Face("Noto Sans", "NotoSansDevanagari-Bold.ttf", "devanagari"),
    Face("Noto Sans", "NotoSansArmenian-Regular.ttf", "armenian"),
    Face("Noto Sans", "NotoSansArmenian-Bold.ttf", "armenian"),
    Face("Noto Sans", "NotoSansGeorgian-Regular.ttf", "georgian"),
    Face("Noto Sans", "NotoSansGeorgian-Bold.ttf", "georgian"),
    Face(EXTRA_SANS, "NotoSans-CondensedBlack.ttf", LGC),
    Face(EXTRA_SANS, "NotoSansHebrew-Light.ttf", "hebrew"),
    Face(EXTRA_SANS, "NotoSansHebrew-CondensedBlack.ttf", "hebrew"),
    Face(EXTRA_SANS, "NotoSansArabic-Black.ttf", "arabic"),
    Face(EXTRA_SANS, "NotoSansArabic-CondensedLight.ttf", "arabic"),
    Face(EXTRA_SANS, "NotoSansDevanagari-Light.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-Black.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-Medium.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-CondensedLight.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-CondensedSemiBold.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-ExtraCondensedBlack.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-ExtraCondensedMedium.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansDevanagari-SemiCondensedExtraBold.ttf", "devanagari"),
    Face(EXTRA_SANS, "NotoSansArmenian-Light.ttf", "armenian"),
    Face(EXTRA_SANS, "NotoSansArmenian-CondensedBlack.ttf", "armenian"),
    Face(EXTRA_SANS, "NotoSansGeorgian-Light.ttf", "georgian"),
    Face(EXTRA_SANS, "NotoSansGeorgian-CondensedBlack.ttf", "georgian"),
    Face("Noto Kufi Arabic", "NotoKufiArabic-Regular.ttf", "arabic"),
    Face("Noto Kufi Arabic", "NotoKufiArabic-Bold.ttf", "arabic"),
    Face("Noto Looped Thai", "NotoLoopedThai-Regular.ttf", "thai"),
    Face("Noto Looped Thai", "NotoLoopedThai-Bold.ttf", "thai"),
    Face(EXTRA_THAI, "NotoLoopedThai-Light.ttf", "thai"),
    Face(EXTRA_THAI, "NotoLoopedThai-Black.ttf", "thai"),
    Face(EXTRA_THAI, "NotoLoopedThai-CondensedMedium.ttf", "thai"),
    Face("Noto Sans CJK", "NotoSansCJK-Regular.ttc", f"{JAPANESE} hangul"),
    Face("Noto Sans CJK", "NotoSansCJK-Bold.ttc", f"{JAPANESE} hangul"),
    Face("Open Sans", "OpenSans-Light.ttf", "", True),
    Face("Open Sans", "OpenSans-ExtraBold.ttf", "", True),
    Face("Roboto", "Roboto-Regular.ttf", LGC, True),
    Face("Roboto", "Roboto-BlackItalic.ttf", "", True),
    Face("Roboto Slab", "RobotoSlab-Light.otf", LGC),
    Face("Roboto Slab", "RobotoSlab-Bold.otf", "", True),
    Face("Lato", "Lato-Black.ttf", LGC),
    Face("Lato", "Lato-Medium.ttf", "", True),
    Face("Lato", "Lato-Italic.ttf", "", True),
    Face("EB Garamond", "EBGaramond12-Italic.otf", LGC, True),
    Face("EB Garamond", "EBGaramond12-Bold.otf", "", True),
    Face("Linux Libertine", "LinLibertine_R.otf", LGC, True),
    Face("Linux Libertine", "LinLibertine_RBI.otf", "", True),
    Face("JetBrains Mono", "JetBrainsMono-Bold.ttf", LGC, True),
    # Its Cyrillic De is a triangle, as Delta is.
    Face("Comfortaa", "Comfortaa-Regular.ttf", "latin greek", True),
    Face("Comfortaa", "Comfortaa-Bold.ttf", "", True),
    Face("Inter", "Inter-Medium.otf", LGC, True),
    Face("Comic Neue", "ComicNeue-Regular.otf", "", True),
    Face("Comic Neue", "ComicNeue-Bold.otf", "", True),
    Face("Dosis", "Dosis-Medium.otf", "", True),
    Face("Cabin", "Cabin-SemiBold.otf", "", True),
    Face("Caladea", "Caladea-Regular.ttf", "", True),
    Face("Caladea", "Caladea-BoldItalic.ttf", "", True),
    Face("Dancing Script", "DancingScript-Bold.otf", "", True),
    Face("Cardo", "Cardo104s.ttf", "hebrew"),
    Face("Cardo", "Cardob101.ttf", "hebrew"),
    Face("Hadasim CLM", "HadasimCLM-Regular.ttf", "hebrew"),
    Face("Hadasim CLM", "HadasimCLM-Bold.ttf", "hebrew"),
    Face("Keter YG", "KeterYG-Medium.ttf", "hebrew"),
    Face("Keter YG", "KeterYG-Bold.ttf", "hebrew"),
    Face("Scheherazade", "Scheherazade-Regular.ttf", "arabic"),
    Face("Scheherazade", "Scheherazade-Bold.ttf", "arabic"),
    Face("Lateef", "Lateef-SemiBold.ttf", "arabic"),
    Face("Thabit", "Thabit-Bold.ttf", "arabic"),
    Face("Lohit Devanagari", "Lohit-Devanagari.ttf", "devanagari"),
    Face("Samyak Devanagari", "Samyak-Devanagari.ttf", "devanagari"),
    Face("Garuda", "Garuda.ttf", "thai"),
    Face("Garuda", "Garuda-BoldOblique.ttf", "thai"),
    Face("Loma", "Loma.ttf", "thai"),
    Face("Loma", "Loma-Bold.ttf", "thai"),
    Face("Tlwg Mono", "TlwgMono.ttf", "thai"),
    Face("Tlwg Mono", "TlwgMono-Bold.ttf", "thai"),
    Face("MPH 2B Damase", "damase.ttf", "armenian"),
    Face("Nanum Gothic", "NanumGothic.ttf", "hangul"),
    Face("Nanum Gothic", "NanumGothicBold.ttf", "hangul"),
    Face("Nanum Barun Gothic", "NanumBarunGothic.ttf", "hangul"),
    Face("Nanum Square Round", "NanumSquareRoundB.ttf", "hangul"),
    Face("BM Hanna Air", "BMHANNAAir_ttf.ttf", "hangul"),
    Face("BM Jua", "BMJUA_ttf.ttf", "hangul"),
    Face("BM DoHyeon", "BMDOHYEON_ttf.ttf", "hangul"),
    Face("BM Yeonsung", "BMYEONSUNG_ttf.ttf", "hangul"),
    Face("BIZ UDGothic", "BIZUDGothic-Regular.ttf", JAPANESE),
    Face("BIZ UDGothic", "BIZUDGothic-Bold.ttf", JAPANESE),
    Face("M PLUS 1", "Mplus1-Light.otf", JAPANESE),
    Face("M PLUS 1", "Mplus1-Black.otf", JAPANESE),
    Face("M PLUS 2", "Mplus2-Medium.otf", JAPANESE),
    Face("WenQuanYi Zen Hei", "wqy-zenhei.ttc", f"{JAPANESE} hangul"),
    Face("Yusei Magic", "YuseiMagic-Regular.ttf", JAPANESE),
    Face("AR PL UKai", "ukai.ttc", JAPANESE),
    # --- val ---
    Face("FreeSerif", "FreeSerif.ttf", f"{LGC} arabic devanagari armenian georgian", True),
    Face("FreeSans", "FreeSansBold.ttf", "armenian georgian", True),
    Face("FreeSans", "FreeSans.ttf", "devanagari"),
    Face("FreeMono", "FreeMono.ttf", "arabic"),
    Face("Tinos", "Tinos-Regular.ttf", "hebrew"),
    Face("Tinos", "Tinos-BoldItalic.ttf", "", True),
    Face("Cousine", "Cousine-Bold.ttf", "hebrew", True),
    Face("Manrope", "Manrope-SemiBold.ttf", LGC, True),
    Face("Karla", "Karla-Medium.otf", "", True),
    Face("Fira Code", "FiraCode-Regular.ttf", "", True),
    Face("Purisa", "Purisa.ttf", "thai"),
    Face("Laksaman", "Laksaman.ttf", "thai"),
    Face("Baekmuk Batang", "batang.ttf", "hangul han"),
    Face("Baekmuk Dotum", "dotum.ttf", "hangul kana"),
    Face("Sawarabi Mincho", "sawarabi-mincho-medium.ttf", JAPANESE),
    # --- test ---
    Face("Noto Serif", "NotoSerif-Regular.ttf", LGC, True),
    Face("Noto Serif", "NotoSerif-BoldItalic.ttf", "", True),
    Face("Noto Serif", "NotoSerifHebrew-Regular.ttf", "hebrew"),
    Face("Noto Serif", "NotoSerifHebrew-Bold.ttf", "hebrew"),
    Face("Noto Serif", "NotoSerifDevanagari-Regular.ttf", "devanagari"),
    Face("Noto Serif", "NotoSerifDevanagari-Bold.ttf", "devanagari"),
    Face("Noto Serif", "NotoSerifThai-Regular.ttf", "thai"),
    Face("Noto Serif", "NotoSerifArmenian-Regular.ttf", "armenian"),
    Face("Noto Serif", "NotoSerifArmenian-Bold.ttf", "armenian"),
    Face("Noto Serif", "NotoSerifGeorgian-Regular.ttf", "georgian"),
    Face("Noto Serif", "NotoSerifGeorgian-Bold.ttf", "georgian"),
    Face(EXTRA_SERIF, "NotoSerifHebrew-Light.ttf", "hebrew"),
    Face(EXTRA_SERIF, "NotoSerifDevanagari-Light.ttf", "devanagari"),
    Face(EXTRA_SERIF, "NotoSerifThai-CondensedBlack.ttf", "thai"),
    Face(EXTRA_SERIF, "NotoSerifArmenian-Light.ttf", "armenian"),
    Face(EXTRA_SERIF, "NotoSerifArmenian-CondensedBlack.ttf", "armenian"),
    Face(EXTRA_SERIF, "NotoSerifArmenian-ExtraCondensedMedium.ttf", "armenian"),
    Face(EXTRA_SERIF, "NotoSerifGeorgian-Light.ttf", "georgian"),
    Face(EXTRA_SERIF, "NotoSerifGeorgian-CondensedBlack.ttf", "georgian"),
    Face(EXTRA_SERIF, "NotoSerifGeorgian-ExtraCondensedMedium.ttf", "georgian"),
    Face("Noto Naskh Arabic", "NotoNaskhArabic-Regular.ttf", "arabic"),
    Face("Noto Naskh Arabic", "NotoNaskhArabic-Bold.ttf", "arabic"),
    Face("Noto Serif CJK", "NotoSerifCJK-Regular.ttc", f"{JAPANESE} hangul"),
    Face("Noto Serif CJK", "NotoSerifCJK-Bold.ttc", f"{JAPANESE} hangul"),
    Face("Gentium Plus", "GentiumPlus-Italic.ttf", LGC, True),
    Face("Gentium Plus", "GentiumPlus-Bold.ttf", "", True),
    Face("Cantarell", "Cantarell-Regular.otf", LGC, True),
    Face("Cantarell", "Cantarell-ExtraBold.otf", "", True),
    Face("Vollkorn", "Vollkorn-Bold.ttf", LGC, True),
    Face("Play", "Play-Regular.ttf", LGC, True),
    Face("Play", "Play-Bold.ttf", "", True),
    Face("Old Standard", "OldStandard-Regular.ttf", "", True),
    Face("Quicksand", "Quicksand-Bold.ttf", "", True),
    Face("Courier Prime", "Courier Prime.otf", "", True),
    Face("League Spartan", "LeagueSpartan-Medium.otf", "", True),
    Face("B612", "B612-Italic.otf", "", True),
    Face("Go", "Go-Regular.ttf", "", True),
    Face("Ezra SIL", "SILEOT.ttf", "hebrew"),
    Face("Shofar", "ShofarRegular.ttf", "hebrew"),
    Face("Amiri", "Amiri-Regular.ttf", "arabic"),
    Face("Amiri", "Amiri-Bold.ttf", "arabic"),
    Face("Harmattan", "Harmattan-Regular.ttf", "arabic"),
    Face("Annapurna SIL", "AnnapurnaSIL-Regular.ttf", "devanagari"),
    Face("Annapurna SIL", "AnnapurnaSIL-Bold.ttf", "devanagari"),
    Face("Kinnari", "Kinnari.ttf", "thai"),
    Face("Kinnari", "Kinnari-BoldItalic.ttf", "thai"),
    Face("Umpush", "Umpush-Light.ttf", "thai"),
    Face("Nanum Myeongjo", "NanumMyeongjo.ttf", "hangul"),
    Face("Nanum Myeongjo", "NanumMyeongjoBold.ttf", "hangul"),
    Face("BIZ UDMincho", "BIZUDMincho-Regular.ttf", JAPANESE),
    Face("Klee One", "KleeOne-SemiBold.ttf", JAPANESE),
    Face("LXGW WenKai", "LXGWWenKai-Regular.ttf", f"{JAPANESE} hangul"),
]


def folder(package: str) -> Path:
    """Return the unpacked folder of a package in its pinned version; fetch it on first use."""
    version = VERSIONS[package]
    target = WORK / "fonts" / f"{package}_{version.replace(':', '-')}"
    if not target.exists():
        debs = WORK / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=debs, check=True)
        # apt writes an epoch's colon as %3a.
        deb = next(debs.glob(f"{package}_{version.replace(':', '%3a')}_*.deb"))
        # Unpacked aside and then renamed: a torn unpacking is never taken for a whole one.
        aside = target.with_suffix(".part")
        subprocess.run(["dpkg", "-x", str(deb), str(aside)], check=True)
        aside.rename(target)
    return target


@cache
def path(face: Face) -> Path:
    """Return the font file of a face."""
    package = FAMILIES[face.family].package
    found = sorted(p for p in folder(package).rglob(face.file) if not p.is_symlink())
    if not found:
        raise FileNotFoundError(f"expected {face.file} in {package} {VERSIONS[package]}")
    return found[0]


@cache
def font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Return a face at `size` pixels per em; the basic layout needs no shaping library."""
    return ImageFont.truetype(
        str(path(face)), size, index=face.index, layout_engine=ImageFont.Layout.BASIC
    )


@cache
def characters(face: Face) -> frozenset[str]:
    """Return the characters for which a face has a glyph (not .notdef) with an outline."""
    # Only this function needs fontTools: `pip install --target .pocket/py fonttools` will do.
    sys.path.insert(0, str(WORK / "py"))
    from fontTools.ttLib import TTFont

    with TTFont(path(face), fontNumber=face.index, lazy=True) as opened:
        return frozenset(
            chr(code) for code, glyph in opened.getBestCmap().items() if glyph != ".notdef"
        )


def group(face: Face) -> str:
    """Return the family of a face, which is in one split, whatever its package."""
    return face.family.split(" (")[0]


def ledger(faces: list[Face]) -> list[dict[str, str]]:
    """Return the fonts for a card: family, package, version, licence, split."""
    used = {face.family for face in faces}
    return [
        {
            "family": name,
            "package": family.package,
            "version": VERSIONS[family.package],
            "licence": family.licence,
            "split": family.split,
        }
        for name, family in FAMILIES.items()
        if name in used
    ]


def licence(faces: list[Face]) -> str:
    """Return a sentence on the licences of the fonts."""
    names = sorted({entry["licence"] for entry in ledger(faces)})
    start = "Rendered images of open fonts, whose licences (listed under `fonts` in the card) are"
    return f"{start}: {'; '.join(names)}"


if __name__ == "__main__":
    for one in FACES:
        print(f"{FAMILIES[one.family].split:5}  {one.family}: {path(one).name}")
