// Package budget keeps a worker within the memory that it may use: it adds up what the floors below hold for others, and frees
// some of it when that is too much.
//
// What it refuses to do: counting what the worker needs for itself, such as the connections and the rooms without what waits
// for them.
//
// Start reading at [Budget.Look].
package budget
