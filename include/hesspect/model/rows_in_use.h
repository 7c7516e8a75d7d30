// Tables of which the data use few rows.
//
// A parameter that the program reads only by looking rows up (an embedding), by indices that depend on no parameter,
// has exactly no curvature in the rows that no index names: the loss does not depend on them at all. Such rows can be
// left out of parameters and vectors. Which rows are in use is told by the data alone: the part of the graph that makes
// the indices runs by itself, without any parameter.
//
//   Program program = Program::load(path, {.lay_out = false});
//   RowMarks marks(program);
//   for (const DataShard& some : blocks) marks.mark(some.inputs);
//   program.lay_out({{marks.tables()[0].name, *marks.rows(0)}});
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace hesspect {

class Program;

/// A parameter that is only looked up. Its rows are its first dimension.
struct RowTable {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t width = 0;  // entries of a row
  std::string parameter;   // the layout's name: another one where tables are tied
  bool alone = true;       // whatever is tied to it is only looked up too
};

/// Rows of a table, ascending; at least one.
struct TableRows {
  std::string name;
  std::vector<std::int64_t> rows;
};
using RowsInUse = std::vector<TableRows>;

/// What one look-up of a table asked for.
struct LookedUp {
  std::size_t table = 0;  // of RowMarks::tables()
  at::Tensor rows;        // int64 on the CPU, of the whole table; undefined where they can't be told
};

/// A matrix that only multiplies an input of the program: column j of it is what feature j of the input is weighed by.
struct InputColumns {
  std::string parameter;
  std::size_t input = 0;
};
/// Those that the program has: weights of linear layers, read nowhere else, whose input is the program's own. For a
/// program that has been laid out or not.
std::vector<InputColumns> input_columns(const Program& program);

/// Collects the rows that a program's tables are looked up at.
class RowMarks {
 public:
  /// Borrows the program, whose buffers hold their data and which need not have been laid out.
  explicit RowMarks(const Program& program);
  ~RowMarks();

  const std::vector<RowTable>& tables() const;
  /// Which of the program's inputs the indices depend on.
  const std::vector<bool>& inputs() const;
  /// Marks the rows that these inputs look up. Where an index can't be made of them, is no row's, or is a mask, its
  /// tables count as whole.
  /// @param inputs  in the program's order, rows first, of as many rows as the program takes; undefined where inputs()
  ///                says that they are not needed
  void mark(const std::vector<at::Tensor>& inputs);
  /// The look-ups that these inputs make, in the program's order. @param inputs  as of mark
  std::vector<LookedUp> look_ups(const std::vector<at::Tensor>& inputs) const;
  /// Of a table: the rows marked so far, ascending; nothing where it counts as whole.
  std::optional<std::vector<std::int64_t>> rows(std::size_t table) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
