// Whether the loss is a sum over rows, as everything here takes it to be: tried on a few rows before a run.
//
// Micro-batches and shards are summed. That is the loss of all rows only where no row's part of it depends on the rows
// beside it: not with batch norm in train mode, in-batch negatives, graphs, rows that are time steps, means over
// unpadded tokens. So a few rows that differ as much as the data's do are run together, apart and in another order,
// with the model's own parameters and with others near them (a head of zeros would hide what lies below it). Limits:
// rows that differ in a way that no feature of theirs shows (data/dataset.h) may be missed; of a program with a fixed
// batch whose output is the loss, a sum over rows can't be told from their mean.
#pragma once

#include <string>

#include "hesspect/curvature/hessian.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect {

class ParameterChanges;  // of room curvature alone

struct RowCheck {
  bool passed = true;
  /// False where there is nothing to compare: a single unit, or a program that takes one at a time.
  bool applies = true;
  std::string finding;   // what was seen and by how much, where it did not pass
  std::string advice;    // what to do then
  double deviation = 0;  // the largest over what rounding explains; at most 1 where it passed
};

/// Runs the program on at most eight units at a time (or its fixed batch), some ten times, without autograd.
///
/// Tolerances are measured, in the program's dtype: what outputs change by when parameters and inputs change by one
/// rounding each, times 256. Not collective: one rank does it, inside `agree`.
/// @param program  its parameters are changed meanwhile, and set back
/// @param changes  of a program whose parameters are elsewhere; collective then, as running the program is
/// @param spec     units of its unit_rows rows are what must not change each other
/// @throws InputError where the program fails on rows of the data
RowCheck check_rows(Program& program, const ArrayFile& file, const DatasetSpec& spec, const LossOptions& loss,
                    int output_index, ParameterChanges* changes = nullptr);

}  // namespace hesspect
