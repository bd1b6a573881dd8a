/*
 * What the search of the documentation shows first.
 *
 * Sphinx gives a page points for the words that it and its title hold, and a name of the reference
 * points if it holds the word. It knows no difference between a guide and an internal. So each page
 * gets as many points more as its place says, and a name counts for little unless it is the word:
 * "ssh" finds the guide, "SshCache" the class.
 */
var Scorer = {
  objNameMatch: 30, // the word is the name
  objPartialMatch: 3,
  objPrio: { 0: 5, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  places: [
    // the first that fits
    [/^explanation\/architecture$|^protocol$/, 0],
    [/^reference\/api\//, 0],
    [/(^|\/)index$/, 0], // lists of pages
    [/^(tutorial|howto\/.*|notebooks\/.*)$/, 25],
    [/^(explanation\/.*|configuration|reference\/command-line)$/, 20],
    [/./, 5],
  ],

  score: function (result) {
    var page = result[0];
    var kind = result[6];
    var points = result[4];
    if (kind === "object") return points;
    for (var index = 0; index < Scorer.places.length; index += 1) {
      if (Scorer.places[index][0].test(page)) return points + Scorer.places[index][1];
    }
    return points;
  },
};
