/**
 * The flushes of all groups of a node, as far as one has to know of the others. A thousand groups that were first written to in the same moment come of age in the
 * same moment, and to begin all their flushes in one turn would hold the event loop for half a second. So what only its age makes due waits while another one is
 * under way; what is full, or stands in others' way, never does.
 */
export class CommonFlushes {
  #underWay = 0;

  get areIdle(): boolean {
    return this.#underWay === 0;
  }

  begun(): void {
    this.#underWay++;
  }

  ended(): void {
    this.#underWay--;
  }
}
