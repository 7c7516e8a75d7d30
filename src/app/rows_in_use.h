// Which rows of a model's tables the run's data use.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect {

/// Some rows of the inputs that are wanted, in the program's order, the others undefined; and how many rows count: a
/// program of fixed batch gets the last one again as often as it needs. 0: no input is wanted, and there are none.
using BlockOfRows = std::function<void(const std::vector<at::Tensor>& inputs, std::int64_t rows)>;

/// This rank's share of the data, of which only the wanted inputs are read, some rows at a time. Local.
void for_each_block(const Program& program, const ArrayFile& file, const DatasetSpec& spec,
                    const std::vector<bool>& wanted, const Communicator& world, const BlockOfRows& f);

/// The rows that some rank's share of the data uses, of every table of which enough rows are not. The ranks divide the
/// data between them, and of it read what indices are made of. None where less than a hundredth of the parameters
/// could be left out, or where a rank can't tell. Collective; the same on all ranks.
/// @param program  with its buffers' data
RowsInUse find_rows_in_use(const Program& program, const ArrayFile& file, const DatasetSpec& spec, Communicator& world);

/// The rows that either uses; a table that one of them does not name is whole, and in neither.
RowsInUse united(const RowsInUse& a, const RowsInUse& b);

/// "word_embeddings.weight: 1,203 of 30,522 rows", of every table of which rows are left out.
std::vector<std::string> tables_in_use(const ParameterLayout& layout);

}  // namespace hesspect
