// How a program's graph reads its parameters, as far as looking rows up goes (hesspect/model/rows_in_use.h).
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <vector>

#include "program_impl.h"

namespace hesspect {

/// A node that reads rows of a table by an index.
struct LookUp {
  std::size_t instruction = 0;
  std::size_t operand = 1;             // where its index stands
  bool in_list = false;                // as the first of a list
  bool from_end = false;               // negative indices count from the end
  std::optional<std::size_t> padding;  // the operand that names a row without derivatives
  std::set<std::size_t> makers;        // instructions that the index is made by
};

/// All that a graph does with a parameter.
struct TableReads {
  std::vector<LookUp> look_ups;
  bool otherwise = false;  // it is read in another way too, or by an index that can't be told from the data
  bool only_looked_up() const { return !otherwise && !look_ups.empty(); }
};

/// By impl.stored.
std::vector<TableReads> table_reads(const Program::Impl& impl);

/// The operand that holds a look-up's index.
Operand& index_of(Graph& graph, const LookUp& look_up);
const Operand& index_of(const Graph& graph, const LookUp& look_up);

/// Has tables look up their held rows (impl.stored[…].rows) by where these are held. Once.
void look_up_held_rows(Program::Impl& impl);

}  // namespace hesspect
