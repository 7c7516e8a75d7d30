// Prints the schema of result files for schema.py.
#include <iostream>

#include "../../src/io/result_schema.h"

int main() { std::cout << hesspect::schema::as_json(); }
