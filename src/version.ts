/** The version of this software, for people: the same as in package.json, which a test checks. A leaf that anyone may import. */
export const version = "0.1.0";
