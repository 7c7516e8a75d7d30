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
};

/// Rows of a table, ascending; at least one.
struct TableRows {
  std::string name;
  std::vector<std::int64_t> rows;
};
using RowsInUse = std::vector<TableRows>;

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
  /// Of a table: the rows marked so far, ascending; nothing where it counts as whole.
  std::optional<std::vector<std::int64_t>> rows(std::size_t table) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
