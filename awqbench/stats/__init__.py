"""The statistics by themselves, for people who bring their own items: numpy and scipy, no torch, no data frames."""

from awqbench.stats.bootstrap import bootstrap_interval
from awqbench.stats.clustered import MeanBounds, clustered_mean
from awqbench.stats.did import GroupEffect, difference_in_differences
from awqbench.stats.mcnemar import mcnemar
from awqbench.stats.medians import MedianRatio, median_interval, ratio_of_medians
from awqbench.stats.multiplicity import benjamini_hochberg, holm
from awqbench.stats.noninferiority import NonInferiority, noninferiority
from awqbench.stats.paired import PairedDelta, paired_delta
from awqbench.stats.permutation import sign_flip
from awqbench.stats.power import mde, required_n
from awqbench.stats.simultaneous import simultaneous_differences
from awqbench.stats.worst_group import WorstGroup, worst_group

__all__ = [
    "GroupEffect",
    "MeanBounds",
    "MedianRatio",
    "NonInferiority",
    "PairedDelta",
    "WorstGroup",
    "benjamini_hochberg",
    "bootstrap_interval",
    "clustered_mean",
    "difference_in_differences",
    "holm",
    "mcnemar",
    "mde",
    "median_interval",
    "noninferiority",
    "paired_delta",
    "ratio_of_medians",
    "required_n",
    "sign_flip",
    "simultaneous_differences",
    "worst_group",
]
