// What `sharpness` says of a model beside its losses: information matrices, relative flatness, and other data.
#pragma once

#include "hesspect/spectrum/measures.h"
#include "one_group.h"

namespace hesspect {

/// Fisher-Rao norms and traces of F, C and the run's matrix, from config.measure_probes random vectors. Collective.
/// @param theta  this rank's shard of the parameters
Information measure_information(OneGroup& run, const at::Tensor& theta);

/// Of the last layer, or of the one that is named. Collective. @throws InputError for a name that is no such tensor
RelativeFlatness measure_flatness(OneGroup& run);

/// Loss and predictions on the run's own rows and on those of --other-data. Collective.
DataComparison compare_data(OneGroup& run);

}  // namespace hesspect
