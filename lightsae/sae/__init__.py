"""The sparse autoencoder, its selection rule, its regularizers and its objective."""

from lightsae.sae.autoencoder import SparseAutoencoder
from lightsae.sae.initialization import Centre, geometric_median, input_statistics
from lightsae.sae.losses.auxk import AuxK, aux_k_loss
from lightsae.sae.losses.monosemanticity_loss import MonosemanticityLoss
from lightsae.sae.losses.objective import Objective, objective
from lightsae.sae.losses.reconstruction import Matryoshka, MultiTopK, Reconstruction
from lightsae.sae.losses.vocabulary_anchor import VocabularyAnchor, vocabulary_anchor
from lightsae.sae.normalization import Normalization, Normalized
from lightsae.sae.regularizers import CodeRegularizer, L1L2Ratio, OffSupportL1, Regularizer
from lightsae.sae.selection import BankTopK, BatchTopK, GroupMax, JumpReLU, Selection, TopK
from lightsae.sae.sparse_code import SparseCode
from lightsae.sae.transcoder import Transcoder, TranscoderOptions

__all__ = [
    "AuxK",
    "BankTopK",
    "BatchTopK",
    "Centre",
    "CodeRegularizer",
    "GroupMax",
    "JumpReLU",
    "L1L2Ratio",
    "Matryoshka",
    "MonosemanticityLoss",
    "MultiTopK",
    "Normalization",
    "Normalized",
    "Objective",
    "OffSupportL1",
    "Reconstruction",
    "Regularizer",
    "Selection",
    "SparseAutoencoder",
    "SparseCode",
    "TopK",
    "Transcoder",
    "TranscoderOptions",
    "VocabularyAnchor",
    "aux_k_loss",
    "geometric_median",
    "input_statistics",
    "objective",
    "vocabulary_anchor",
]
