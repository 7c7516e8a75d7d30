// Columns of text.
#pragma once

#include <string>

namespace hesspect {

/// Characters, not bytes, of a text in UTF-8.
inline std::size_t characters(const std::string& text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // all but UTF-8's later bytes
  return count;
}

/// With spaces up to so many characters behind it.
inline std::string padded(const std::string& text, std::size_t width) {
  const std::size_t length = characters(text);
  return length < width ? text + std::string(width - length, ' ') : text;
}

}  // namespace hesspect
