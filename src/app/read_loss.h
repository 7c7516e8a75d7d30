// The loss that a run is asked for, with the weights that the data file holds.
#pragma once

#include "hesspect/config/run_config.h"
#include "hesspect/curvature/loss.h"
#include "hesspect/data/dataset.h"

namespace hesspect {

/// @throws InputError, naming the option: an array that is not there, or that holds a negative or non-finite weight
LossOptions read_loss(const LossConfig& config, const ArrayFile& file);

}  // namespace hesspect
